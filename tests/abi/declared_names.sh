#!/bin/bash
# Prints the functions that gradferry.h declares, one a line, sorted. The compiler
# itself lists them, so a comment or a macro cannot mislead it.
# Usage: declared_names.sh HEADER_FOLDER
set -euo pipefail

list=$(mktemp)
trap 'rm -f "$list"' EXIT
echo '#include "gradferry/gradferry.h"' |
    gcc -x c -std=c11 -I"$1" -fsyntax-only -aux-info "$list" -
grep 'gradferry\.h:' "$list" | grep -o '\bgf_[a-z0-9_]* (' | sed 's/ ($//' | LC_ALL=C sort -u
