#!/bin/sh
# Install memlimits into .venv and run examples/digits.py under two limits: one
# that fits, and one that is too small.
set -eu
cd "$(dirname "$0")/.."
. .ci/setup.sh

make_venv
pip_install "building memlimits and installing it into $venv, a minute or two" '.[numpy]'
# It is read for its data file alone, which needs none of its dependencies.
pip_install "installing scikit-learn, whose handwritten digits the example reads" --no-deps \
    --no-compile scikit-learn

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
