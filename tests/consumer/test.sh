#!/bin/bash
# Builds and runs the consumer workspace from a clean output base, and removes
# what it made. Run by `./dev test consumer`.
# Usage: test.sh [bazel flags, such as --disk_cache=...]
set -euo pipefail
cd "$(dirname "$0")"

output_base=$(mktemp -d)
bazel=(bazel "--output_base=$output_base")
links=(--experimental_convenience_symlinks=ignore)
cleanup() {
    "${bazel[@]}" shutdown >/dev/null 2>&1 || true
    # Bazel write-protects the folders it fills.
    chmod -R u+w "$output_base" && rm -rf "$output_base"
}
trap cleanup EXIT

programs=(static_cc static_c shared_c shared_file_c dlopen_c)
"${bazel[@]}" build "${links[@]}" "$@" "${programs[@]/#/:}"

failed=0
for program in "${programs[@]}"; do
    # bazel run, so that the program starts in its runfiles as a user's would.
    if said=$("${bazel[@]}" run "${links[@]}" "$@" --ui_event_filters=-info,-stdout,-stderr --noshow_progress \
            ":$program" 2>&1) && [[ $said == *"gradferry works"* ]]; then
        echo "PASSED consumer.$program"
    else
        echo "FAILED consumer.$program: $said"
        failed=1
    fi
done
exit $failed
