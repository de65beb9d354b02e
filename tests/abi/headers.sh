#!/bin/bash
# Compiles each public header by itself, in each language and with each compiler,
# every warning an error. Run by `./dev test headers`.
set -uo pipefail
include=$(cd "$(dirname "$0")/../../c_api/include" && pwd)
failed=0

# check COMPILER LANGUAGE STANDARD HEADER
check() {
    local name="headers.$4.$1.$3" said
    if said=$(echo "#include \"gradferry/$4\"" |
            "$1" -x "$2" "-std=$3" -fsyntax-only -Wall -Wextra -Wpedantic -Werror -I"$include" - 2>&1); then
        echo "PASSED $name"
    else
        echo "$said"
        echo "FAILED $name: $(grep -m1 -E 'error|not found' <<<"$said")"
        failed=1
    fi
}

for header in gradferry.h transport.h; do
    for compiler in gcc clang; do
        check $compiler c c11 $header
        check $compiler c++ c++17 $header
        check $compiler c++ c++20 $header
    done
done
exit $failed
