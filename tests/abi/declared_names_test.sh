#!/bin/bash
# The checked-in list of exported names is what gradferry.h declares.
# Usage: declared_names_test.sh DECLARED_NAMES_SCRIPT LIST
set -euo pipefail
export LC_ALL=C
if ! diff -u --label 'the list' --label 'gradferry.h' <(grep -v '^#' "$2") <("$1" c_api/include); then
    echo "The list of exported names and the header differ. If the header is right, run: ./dev abi-update"
    exit 1
fi
