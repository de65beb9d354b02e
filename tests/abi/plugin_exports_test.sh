#!/bin/bash
# A transport plugin exports its entry and nothing else, and carries the note by
# which the loader knows its version before it opens it.
# Usage: plugin_exports_test.sh PLUGIN
set -euo pipefail
names=$(nm -D --defined-only --extern-only "$1" | awk '{ print $3 }')
if [[ $names != gf_transport_entry_v0 ]]; then
    echo "$1 should export gf_transport_entry_v0 alone; it exports: ${names:-nothing}"
    exit 1
fi
if ! readelf -nW "$1" | grep -q '^ *Gradferry '; then
    echo "$1 has no ELF note of Gradferry's; it should hold GF_TRANSPORT_NOTE once"
    exit 1
fi
