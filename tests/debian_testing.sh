#!/bin/sh
# Run the tests on Python 3.14 and 3.15 as Debian's testing suite has them, in a chroot that is made
# in the user's cache, and kept. Needs root. Arguments go to `tox run`; a --result-json that comes
# first names a file outside the chroot. With --wheels FOLDER first it is wheels that are built and
# put there, and arguments go to .ci/wheels/run.sh.
set -eu
cd "$(dirname "$0")/.."
. .ci/setup.sh

versions="3.14 3.15"
root=$cache/debian-testing

[ "$(id -u)" -eq 0 ] || die "a chroot needs root: sudo sh tests/debian_testing.sh"
# Whatever is mounted below goes with the processes of this namespace, however they end.
if [ "${IN_NAMESPACE-}" != "$$" ]; then
    unshare --mount true 2>/dev/null ||
        die "mount namespaces are not allowed here (in a container: CAP_SYS_ADMIN)"
    exec env IN_NAMESPACE="$$" unshare --mount --propagation private sh tests/debian_testing.sh "$@"
fi

result='' wheels=''
case ${1-} in
--result-json) result=$(realpath -m "$2") && shift 2 ;;
--wheels) wheels=$(realpath -m "$2") && shift 2 ;;
esac
envs=
packages="ca-certificates g++ libc6-dev"
for version in $versions; do
    envs="$envs,py$(echo "$version" | tr -d .)"
    packages="$packages python$version python$version-dev python$version-venv"
done

inside() {
    chroot "$root" env -u TMPDIR -u TOXENV -u XDG_CACHE_HOME HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin "$@"
}

# ---- the chroot ----

mkdir -p "$cache"
exec 9>"$root.lock"
flock -n 9 || { say "waiting for another run in $root" && flock 9; }

if ! [ -d "$root" ]; then
    command -v debootstrap >/dev/null || apt_install debootstrap debian-archive-keyring
    mirror=$(debian_mirror)
    # What an interrupted run left behind has no mounts, which went with its namespace.
    rm -rf --one-file-system "$root.new"
    quietly "making a chroot of Debian's testing suite, $root" \
        debootstrap --variant=minbase testing "$root.new" "$mirror" ||
        die "debootstrap could not make it"
    mv "$root.new" "$root"
fi

# A mirror may be a snapshot, whose lists are out of date. They are signed all the same.
quietly "updating it" inside apt-get -q -o Acquire::Check-Valid-Until=false update ||
    die "apt-get update failed in $root (to have it made anew: rm -r $root)"
for version in $versions; do
    inside apt-cache show "python$version" >/dev/null 2>&1 ||
        die "Debian's testing suite has no python$version any more, but $(inside apt-cache \
            search --names-only '^python3\.[0-9]+$' | cut -d' ' -f1 | sort -V | tr '\n' ' '):" \
            "the versions that are tested stand at the top of tests/debian_testing.sh"
done
# shellcheck disable=SC2086 # a list of names
quietly "installing $packages in it" \
    inside apt-get -q -y --no-install-recommends install $packages ||
    die "apt-get install failed in $root (to have it made anew: rm -r $root)"

# ---- the machine, seen from inside ----

# The tests make mount namespaces of their own, for which the root has to be a mount.
mount --rbind "$root" "$root"
for directory in dev proc sys; do
    mount --rbind "/$directory" "$root/$directory"
done
pip_cache=${XDG_CACHE_HOME:-$HOME/.cache}/pip
mkdir -p "$pip_cache" "$root/root/.cache/pip"
mount --bind "$pip_cache" "$root/root/.cache/pip"
for file in /etc/hosts /etc/pip.conf /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
    if [ -e "$file" ]; then
        cp -L "$file" "$root$file"
    fi
done

# ---- the tests ----

tree=/usr/src/memlimits
rm -rf "$root$tree"
mkdir "$root$tree"
{
    git ls-files -z --cached --others --exclude-standard
    # Cython need not make again what a build here has made.
    [ ! -d build/cython ] || find build/cython -type f -print0
} |
    tar --null --files-from - --ignore-failed-read --create |
    tar --extract --no-same-owner --directory "$root$tree"
if [ "$wheels" ]; then
    inside sh "$tree/.ci/wheels/run.sh" "$@" --out "$tree/dist"
    cp "$root$tree"/dist/*.whl "$wheels"
    exit
fi
status=0
inside sh "$tree/tests/run.sh" -e "${envs#,}" --result-json "$tree/result.json" "$@" || status=$?
if [ "$result" ] && [ -e "$root$tree/result.json" ]; then
    cp "$root$tree/result.json" "$result"
fi
exit "$status"
