#!/bin/bash
# libgradferry.so exports the names of the checked-in list, under one version node,
# and nothing else: no C++ names, no GNU-unique symbols.
# Usage: library_exports_test.sh LIBRARY LIST
set -euo pipefail
library=$1 list=$2
export LC_ALL=C
failed=0

symbols=$(nm -D --defined-only --extern-only "$library")
node=$(awk '$2 == "A" { print $3 }' <<<"$symbols")
functions=$(awk '$2 != "A" { print $3 }' <<<"$symbols" | sed 's/@.*//' | sort)

if ! diff -u --label 'the list' --label 'exported' <(grep -v '^#' "$list" | sort) <(echo "$functions"); then
    echo "Lines with - are listed but not exported: not defined, or not in the linker script."
    echo "Lines with + are exported but not listed. After a change of gradferry.h run: ./dev abi-update"
    failed=1
fi

if [[ $(wc -w <<<"$node") != 1 || $node != GRADFERRY_* ]]; then
    echo "The version node should be one GRADFERRY_<epoch>; it is: $node"
    failed=1
fi

epoch=${node#GRADFERRY_}
dynamic=$(readelf -dW "$library")
for wanted in "Library soname: \[libgradferry\.so\.$epoch\]" NODELETE; do
    grep -q "$wanted" <<<"$dynamic" || { echo "The dynamic section lacks: $wanted"; failed=1; }
done

if unique=$(readelf -W --dyn-syms "$library" | awk '$5 == "UNIQUE" && $7 != "UND"' | grep .); then
    echo "GNU-unique symbols tie copies of the library together:"
    echo "$unique"
    failed=1
fi
exit $failed
