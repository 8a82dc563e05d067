#!/bin/sh
# Build a free-threaded Python 3.13 from Debian's source package, once, into the user's cache;
# tests/run.sh finds it there. Takes 3 minutes on two cores.
set -eu
cd "$(dirname "$0")/.."
. .ci/setup.sh

name=python3.13
prefix=$cache/${name}t
# Written last: what an interrupted run left behind is made anew.
finished=$prefix/finished
if [ -e "$finished" ]; then
    say "there already: $prefix/bin/${name}t"
    exit
fi

packages="debian-archive-keyring gcc libc6-dev make libbz2-dev libffi-dev liblzma-dev
    libsqlite3-dev libssl-dev zlib1g-dev"
# shellcheck disable=SC2086 # a list of names
dpkg -s $packages >/dev/null 2>&1 || apt_install $packages

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(debian_mirror)
echo "deb-src [signed-by=$keys] $mirror testing main" >"$work/sources.list"

# With sources, lists and a cache of its own: those of the machine stay as they are.
apt() {
    # A mirror may be a snapshot, whose lists are out of date. They are signed all the same.
    apt-get -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" \
        -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User="$(id -un)" "$@"
}

# Upstream's own, without Debian's patches: those have environments look for packages elsewhere.
get_source() (
    cd "$work" && apt update && apt --download-only source "$name" && mkdir source &&
        tar -xf "$name"_*.orig.tar.* -C source --strip-components 1
)

build() (
    mkdir "$work/build" && cd "$work/build" &&
        ../source/configure --disable-gil --disable-test-modules --without-ensurepip \
            --prefix="$prefix" OPT="-O2 -DNDEBUG" &&
        make -s -j"$(nproc)" && rm -rf "$prefix" && make -s altinstall
)

quietly "getting the source of $name from Debian's testing suite" get_source ||
    die "the testing suite on $mirror gives no source of $name"
quietly "building $name without the GIL, 3 minutes on two cores" build ||
    die "$name could not be built"
"$prefix/bin/${name}t" -c 'import bz2, ctypes, lzma, sqlite3, ssl, sys, zlib
sys.exit(sys._is_gil_enabled())' || die "$prefix/bin/${name}t is not as it should be"
touch "$finished"
say "built: $prefix/bin/${name}t"
