#!/bin/sh
# Run the tests through tox on each Python that tox.ini names and that is present: on PATH, under
# pyenv, or made by tests/free_threaded.sh. Arguments go to `tox run`: `-e lint` checks the sources.
set -eu
cd "$(dirname "$0")/.."
. .ci/setup.sh

make_venv
pip_install "installing tox into $venv" 'tox>=4.23'

envs=
pythons=
for version in $("$venv/bin/python" .ci/environments.py versions); do
    found=$(find_version "$version")
    if [ "$found" ]; then
        say "testing with $found"
        envs="$envs,py$(echo "$version" | tr -d .)"
        pythons="$pythons,$found"
    fi
done
[ "$envs" ] || die "no Python that is tested is present with its headers"

# An -e among the arguments takes the place of TOXENV.
export TOXENV="${TOXENV:-${envs#,}}" TOX_DISCOVER="${pythons#,}"
# One environment's installations keep one processor busy, so those of several take place at once.
# Builds do not: they have one folder. What fails here fails again below, and is told there.
quietly "installing what the environments need" "$venv/bin/tox" run-parallel --notest \
    --skip-pkg-install --parallel-no-spinner "$@" || true
exec "$venv/bin/tox" run "$@"
