# shellcheck shell=sh
# Sourced by examples/run.sh and the scripts of tests/, from the top of the source tree.
# make_venv creates .venv after installing, through apt-get, what a build needs
# and the machine lacks.

venv=.venv
# What takes minutes to make, and is made of nothing in this tree.
# shellcheck disable=SC2034 # for those that source this
cache=${XDG_CACHE_HOME:-$HOME/.cache}/memlimits

say() {
    echo "memlimits: $*" >&2
}

die() {
    say "$*"
    exit 1
}

# Say $1 and run the rest, whose output is shown only if that fails. While it runs, a line now and
# then says so.
quietly() {
    what=$1
    shift
    say "$what"
    log=$(mktemp)
    # It looks for this shell, which may be ended in any way, and leaves no process that holds
    # standard error.
    (
        waited=0
        while sleep 10 2>/dev/null && kill -0 "$$" 2>/dev/null; do
            waited=$((waited + 10))
            echo "memlimits:   $what: $waited s" >&2
        done
    ) >/dev/null &
    ticker=$!
    status=0
    "$@" >"$log" 2>&1 || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    [ "$status" -eq 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

# Print the first Python that is new enough.
find_python() {
    for candidate in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# Print the packages that stand between $1, a Python or nothing, and a build.
missing_packages() {
    if [ "$1" ]; then
        "$1" -c 'import ensurepip, venv' 2>/dev/null || echo "$1-venv"
        has_headers "$1" || echo "$1-dev"
    else
        echo python3 python3-venv python3-dev
    fi
    # CC may have arguments.
    # shellcheck disable=SC2086
    echo "#include <stdlib.h>" | ${CC:-gcc} -E - >/dev/null 2>&1 || echo gcc libc6-dev
}

has_headers() {
    "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null
}

# Print an interpreter of version $1 that can build an extension: one with headers; free-threaded
# where the version ends in t, and else an ordinary one.
find_version() {
    for candidate in "python$1" "$cache/python$1/bin/python$1" \
        "${PYENV_ROOT:-$HOME/.pyenv}/versions/${1%t}".*/bin/"python$1"; do
        if "$candidate" -c "import sys, sysconfig
kind = 't' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''
sys.exit('%d.%d%s' % (*sys.version_info[:2], kind) != '$1')" 2>/dev/null; then
            if has_headers "$candidate"; then
                "$candidate" -c 'import sys; print(sys.executable)'
                return
            fi
            say "$candidate has no headers (python$1-dev): left out"
        fi
    done
}

apt_install() {
    command -v apt-get >/dev/null || die "please install the equivalent of: $*"
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif command -v sudo >/dev/null; then
        as_root=sudo
    else
        say "these packages are missing; please run as root, and then this script again:"
        die "apt-get update && apt-get install -y --no-install-recommends $*"
    fi
    # shellcheck disable=SC2086 # empty when we are root already
    quietly "apt-get update" $as_root apt-get -q update ||
        say "some lists of packages are old; going on with them"
    # shellcheck disable=SC2086
    quietly "apt-get install $*" $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y --no-install-recommends install "$@" || die "please install by hand: $*"
}

# Print a mirror of Debian that apt here uses.
debian_mirror() {
    # shellcheck disable=SC2016 # apt fills it in
    mirror=$(apt-get indextargets --format '$(SITE)' 'Identifier: Packages' 'Label: Debian' |
        head -n 1)
    [ "$mirror" ] || die "no source of apt's on this machine is Debian (try apt-get update)"
    echo "$mirror"
}

make_venv() {
    python=$(find_python)
    packages=$(missing_packages "$python" | tr '\n' ' ')
    if [ "$packages" ]; then
        # shellcheck disable=SC2086 # a list of names
        apt_install $packages
        python=$(find_python)
        if [ -z "$python" ]; then
            # Where python3 is older, the release may have a newer one beside it.
            apt_install python3.11 python3.11-venv python3.11-dev
            python=$(find_python)
            [ "$python" ] || die "Python 3.11 or newer is needed"
        fi
        packages=$(missing_packages "$python" | tr '\n' ' ')
        [ -z "$packages" ] || die "after installing them, $python still does without: $packages"
    fi
    # An interrupted run may have left an environment without pip.
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        quietly "making $venv with $("$python" -V)" "$python" -m venv --clear "$venv"
    fi
}

pip_install() {
    what=$1
    shift
    quietly "$what" "$venv/bin/python" -m pip install "$@" || die "pip could not do that"
}
