# shellcheck shell=sh
# Sourced by examples/run.sh and tests/run.sh, from the top of the source tree.
# make_venv creates .venv after installing, through apt-get, what a build needs
# and the machine lacks.

venv=.venv

die() {
    echo "memlimits: $*" >&2
    exit 1
}

# Print the first Python that is new enough.
find_python() {
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# Print the packages that stand between $1, a Python, and a build.
missing_packages() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null || echo "$1-venv"
    has_headers "$1" || echo "$1-dev"
    echo '#include <stdlib.h>' | "${CC:-gcc}" -E - >/dev/null 2>&1 || echo gcc libc6-dev
}

has_headers() {
    "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null
}

apt_install() {
    command -v apt-get >/dev/null || die "please install the equivalent of: $*"
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif command -v sudo >/dev/null; then
        as_root=sudo
    else
        die "please run as root: apt-get install $*"
    fi
    echo "memlimits: installing $*"
    # shellcheck disable=SC2086 # empty when we are root already
    {
        $as_root apt-get -q update
        $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get -q -y --no-install-recommends install "$@"
    } || die "please install by hand: $*"
}

make_venv() {
    python=$(find_python)
    if [ -z "$python" ]; then
        apt_install python3.11
        python=$(find_python)
        [ "$python" ] || die "Python 3.11 or newer is needed"
    fi
    packages=$(missing_packages "$python")
    if [ "$packages" ]; then
        # shellcheck disable=SC2086 # a list of names
        apt_install $packages
        packages=$(missing_packages "$python" | tr '\n' ' ')
        [ -z "$packages" ] || die "after installing them, $python still does without: $packages"
    fi
    # An interrupted run may have left an environment without pip.
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --clear "$venv"
    fi
}
