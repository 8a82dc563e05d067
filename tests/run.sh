#!/bin/sh
# Run the tests through tox on each of Python 3.11, 3.12 and 3.13 that is present,
# on PATH or under pyenv. Arguments go to `tox run`: `-e lint` checks the sources.
set -eu
cd "$(dirname "$0")/.."
. .ci/setup.sh

make_venv
"$venv/bin/python" -m pip install --quiet 'tox>=4.23'

# Print an interpreter of version $1 that can build an extension: an ordinary one, with headers.
find_version() {
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if "$candidate" -c "import sys, sysconfig
same = '%d.%d' % sys.version_info[:2] == '$1'
sys.exit(not same or bool(sysconfig.get_config_var('Py_GIL_DISABLED')))" 2>/dev/null; then
            if has_headers "$candidate"; then
                "$candidate" -c 'import sys; print(sys.executable)'
                return
            fi
            echo "memlimits: $candidate has no headers (python$1-dev): left out" >&2
        fi
    done
}

envs=
pythons=
for version in 3.11 3.12 3.13; do
    found=$(find_version "$version")
    if [ "$found" ]; then
        echo "memlimits: testing with $found"
        envs="$envs,py$(echo "$version" | tr -d .)"
        pythons="$pythons,$found"
    fi
done
[ "$envs" ] || die "no Python 3.11, 3.12 or 3.13 with headers is present"

# An -e among the arguments takes the place of TOXENV.
TOXENV=${TOXENV:-${envs#,}} TOX_DISCOVER=${pythons#,} exec "$venv/bin/tox" run "$@"
