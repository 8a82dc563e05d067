#!/bin/sh
# Install memlimits into .venv and run examples/digits.py under two limits: one
# that fits, and one that is too small.
set -eu
cd "$(dirname "$0")/.."
. .ci/setup.sh

make_venv
"$venv/bin/python" -m pip install --quiet .
# The example reads a data file of scikit-learn's and needs nothing of its dependencies.
"$venv/bin/python" -m pip install --quiet --no-deps scikit-learn

run() {
    echo
    echo "\$ memlimits run $*"
    "$venv/bin/memlimits" run "$@"
}

run --memory-limit 256MiB examples/digits.py --chunk 64
status=0
run --memory-limit 64MiB examples/digits.py --chunk 64 || status=$?
[ "$status" -eq 1 ] || die "expected exit status 1 under 64 MiB, not $status"
echo
echo "64 MiB is too little for this program: it ended in a MemoryError, as it should."
