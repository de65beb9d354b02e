#!/bin/bash
# Runs the demo as a newcomer would, over each transport. Run by `./dev test demo`.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
failed=0
for transport in sim tensorpipe thrift; do
    if timeout 600 "$root/dev" demo --transport "$transport" 2>&1; then
        echo "PASSED demo.$transport"
    else
        echo "FAILED demo.$transport: it ended with status $?"
        failed=1
    fi
done
exit $failed
