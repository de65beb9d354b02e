#!/bin/bash
# Installs into a temporary folder, then builds and runs a C program outside the
# repository against it, once by pkg-config and once by CMake, after moving the
# tree. Run by `./dev test install`.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# check NAME COMMAND...: one result line; what the command says only if it fails.
check() {
    local name="install.$1" said
    shift
    if said=$("$@" 2>&1); then
        echo "PASSED $name"
    else
        echo "$said"
        echo "FAILED $name: $(tail -n 1 <<<"$said")"
        failed=1
    fi
}

says_it_works() { [[ $("$@") == "gradferry works" ]]; }

layout() {
    local file
    for file in include/gradferry/{gradferry,transport}.h bin/gradferry-demo bin/gradferry \
            lib/libgradferry.so lib/libgradferry.so.0 \
            lib/gradferry/plugins/libgradferry_transport_{sim,tensorpipe,thrift}.so \
            lib/pkgconfig/gradferry.pc lib/cmake/Gradferry/GradferryConfig{,Version}.cmake; do
        [[ -e $prefix/$file ]] || { echo "$file is missing"; return 1; }
    done
    if grep -rl '@[A-Z_]*@' "$prefix/lib/pkgconfig" "$prefix/lib/cmake"; then
        echo "a template was not filled in"
        return 1
    fi
}

by_pkg_config() (
    set -e
    export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
    cp "$root/tests/consumer/use.c" "$work/pkg.c"
    gcc -std=c11 -Wall -Wextra -Wpedantic -Werror "$work/pkg.c" -o "$work/pkg" \
        $(pkg-config --cflags --libs gradferry) -Wl,-rpath,"$(pkg-config --variable=libdir gradferry)"
    says_it_works "$work/pkg"
)

# The program that the README shows, with the commands that it gives.
by_readme() (
    set -e
    cd "$work"
    sed -n '/^```c$/,/^```$/p' "$root/README.md" | sed '1d;$d' >program.c
    [[ -s program.c ]]
    commands=$(sed -n '/^export PKG_CONFIG_PATH/,/^```$/p' "$root/README.md" | sed '$d')
    said=$(eval "${commands//\/opt\/gradferry/$prefix}")
    echo "$said"
    [[ $said == "d dot(x, x) / dx = 2 4 6" ]]
)

by_cmake() (
    set -e
    mkdir -p "$work/cmake"
    cp "$root/tests/consumer/use.c" "$here/CMakeLists.txt" "$work/cmake/"
    cmake -S "$work/cmake" -B "$work/cmake/build" -DCMAKE_PREFIX_PATH="$prefix"
    cmake --build "$work/cmake/build"
    says_it_works "$work/cmake/build/use"
)

# The library finds the plugins beside itself.
demo_trains() {
    env -u GRADFERRY_PLUGIN_PATH timeout 120 "$prefix/bin/gradferry-demo" \
        --data "$root/examples/data/digits" --transport "$1"
}

"$root/dev" install "$work/first" || { echo "FAILED install.install: ./dev install failed"; exit 1; }
echo "PASSED install.install"
# Nothing may depend on the place it was installed to.
prefix=$work/moved
mv "$work/first" "$prefix"

check layout layout
check pkg_config by_pkg_config
check readme by_readme
check cmake by_cmake
check demo_sim demo_trains sim
check demo_tensorpipe demo_trains tensorpipe
check demo_thrift demo_trains thrift
exit $failed
