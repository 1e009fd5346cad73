#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# distro.sh RELEASE [--quick] [--only STEPS] [--scratch DIR] [--mirror URL] - the project on a fresh Debian of that release (bookworm,
# trixie): debootstrap into a folder, install-deps.sh, quickstart, the tests, the Debian package. Not part of the test suite: it takes about
# an hour on two cores, needs root, debootstrap and the network, and ends by itself after at most three hours.
set -euo pipefail

usage() {
	cat <<'HELP'
usage: distro.sh RELEASE [options]

  RELEASE        bookworm or trixie
  --quick        leave out the steps build and tests
  --only STEPS   only these, with commas: deps,quickstart,build,unit,system,package,installed
  --tests REGEX  step system: only these tests, as ctest -R takes them
  --scratch DIR  working folder, and archive of the base systems that later calls use again (default: $TMPDIR or /var/tmp, salt_distro)
  --mirror URL   Debian mirror (default: the one of this host's apt)
  --jobs N       compilers at the same time (default: number of processors)

  deps        install-deps.sh installs everything, and a second call has nothing to do
  quickstart  quickstart.sh --steps 40, which builds the release preset
  build       the dev preset, warnings are errors
  unit        the tests unit, kernels, golden, replay and crash
  system      the tests system, without those that need the host's own services
  package     dpkg-buildpackage -b, lintian without errors, programs with the library of libsaltfleet-dev
  installed   the package in a system without compilers: quickstart.sh, removal

It tests HEAD of this checkout, from a clean clone. Exit code: 0 all steps passed; 1 a step failed; 64 wrong use; 69 cannot run here.
HELP
}
die() { echo "distro.sh: $2" >&2; exit "$1"; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(cd "$here/.." && pwd)
release='' quick=0 only='' scratch=${TMPDIR:-/var/tmp}/salt_distro mirror='' jobs=$(nproc) tests=.
original=("$@")
while [ $# -gt 0 ]; do
	case "$1" in
	--quick) quick=1 ;;
	--only | --scratch | --mirror | --jobs | --tests)
		[ $# -ge 2 ] || die 64 "$1 needs a value"
		case "$1" in --only) only=$2 ;; --scratch) scratch=$2 ;; --mirror) mirror=$2 ;; --jobs) jobs=$2 ;; --tests) tests=$2 ;; esac
		shift ;;
	-h | --help) usage; exit 0 ;;
	bookworm | trixie) release=$1 ;;
	*) die 64 "unexpected argument $1; see distro.sh --help" ;;
	esac
	shift
done
[ -n "$release" ] || { usage >&2; exit 64; }
[ "$(id -u)" -eq 0 ] || die 69 "needs root: debootstrap, chroot, mount"
for program in debootstrap unshare zstd git ip; do
	command -v $program > /dev/null || die 69 "$program is not installed: apt-get install debootstrap util-linux zstd git iproute2"
done
[ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2> /dev/null | grep -m 1 -E '/debian/?$') ||
    die 69 "this host's apt names no Debian mirror; give --mirror URL"

# The script runs in mount and process namespaces of its own, so that all its mounts and processes end with it.
if [ -z "${SALT_DISTRO:-}" ]; then
	SALT_DISTRO=1 exec timeout --foreground -k 30 3h unshare --mount --pid --fork --kill-child --mount-proc --propagation private \
	    nice -n 10 bash "$0" "${original[@]}"
fi

mkdir -p "$scratch" || die 69 "$scratch: cannot be created"
scratch=$(cd "$scratch" && pwd)
work=$(mktemp -d "$scratch/$release.XXXXXX")
cleanup() {
	local root
	for root in "$work"/*/; do
		[ ! -d "$root/proc" ] || umount -R -l "$root"/{proc,sys,dev} "$root"/run/netns 2> /dev/null || true
	done
	[ -n "${KEEP:-}" ] || rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

failed=() table=()
# step NAME COMMAND...: runs the command with its output in a file; if it fails, shows the end of the file
step() {
	local name=$1 log=$work/$1.log rc=0 t=$SECONDS
	shift
	wanted "$name" || return 0
	echo "== $release: $name"
	"$@" > "$log" 2>&1 || rc=$?
	table+=("$(printf '%-11s %5d s  %s' "$name" $((SECONDS - t)) "$([ $rc -eq 0 ] && echo passed || echo "failed with $rc")")")
	! grep -hE '^(run|note|[0-9]+% tests passed|.*\*\*\*|[0-9]+:[0-9]+ min in all)' "$log" | tail -n 40 || true
	[ $rc -ne 0 ] || return 0
	cp "$log" "$scratch/$release.$name.log"
	tail -n 40 "$log"
	echo "distro.sh: $release: $name failed with exit code $rc; all of its output: $scratch/$release.$name.log" >&2
	failed+=("$name")
	return 0
}
wanted() {
	if [ -n "$only" ]; then
		case ",$only," in *",$1,"*) return 0 ;; *) return 1 ;; esac
	fi
	case "$1" in build | unit | system) [ $quick -eq 0 ] ;; esac
}

# system_new ROOT ARCHIVE: makes a base system in ROOT, from the archive if it exists, with the mounts that a chroot needs
system_new() {
	local root=$1 archive=$2
	mkdir -p "$root"
	if [ -e "$archive" ]; then
		tar -C "$root" -xf "$archive" || return
	else
		debootstrap --variant=minbase "$release" "$root" "$mirror" || return
		system_keep "$root" "$archive" || return
	fi
	echo force-unsafe-io > "$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
	cp /etc/resolv.conf "$root/etc/resolv.conf"
	echo "127.0.0.1 localhost $(hostname)" > "$root/etc/hosts"
	printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"		# packages start no daemons here
	chmod +x "$root/usr/sbin/policy-rc.d"
	mount -t proc proc "$root/proc" && mount --rbind --make-rslave /sys "$root/sys" &&
	mount --rbind --make-rslave /dev "$root/dev"
}
system_keep() {		# system_keep ROOT ARCHIVE
	tar -C "$1" --one-file-system --exclude=./src --exclude=./proc/* --exclude=./sys/* --exclude=./dev/* -c . | zstd -q -3 -f -o "$2.tmp" && mv "$2.tmp" "$2"
}

# inside ROOT SECONDS SCRIPT [ARG...]: runs SCRIPT with bash in ROOT; of this environment it gets only the proxies for apt.
# offline ROOT SECONDS SCRIPT [ARG...]: the same without this host's network, because other programs use its ports.
apart=()
offline() {
	local apart=(unshare --net bash -c 'ip link set lo up && exec "$@"' -)
	inside "$@"
}
inside() {
	local root=$1 seconds=$2 proxies=() name
	for name in http_proxy https_proxy no_proxy; do
		[ -z "${!name:-}" ] || proxies+=("$name=${!name}")
	done
	timeout -k 20 "$seconds" ${apart[@]+"${apart[@]}"} chroot "$root" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	    LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 JOBS="$jobs" \
	    ${proxies[@]+"${proxies[@]}"} bash -euo pipefail -c "$3" - "${@:4}" < /dev/null
}

root=$work/build
base=$scratch/$release.tar.zst
deps=$scratch/$release-$(sha256sum < "$source/deploy/install-deps.sh" | cut -c 1-16).tar.zst	# with the packages of install-deps.sh

prepare() {
	if [ -e "$deps" ]; then
		system_new "$root" "$deps"
	else
		system_new "$root" "$base"
	fi || return
	git clone --quiet "file://$source" "$root/src"
}
install_deps() {
	inside "$root" 3000 'apt-get -qq update && /src/deploy/install-deps.sh && /src/deploy/install-deps.sh --check' || return
	[ -e "$deps" ] || { rm -f "$scratch/$release"-*.tar.zst; system_keep "$root" "$deps"; }
}
prepare > "$work/prepare.log" 2>&1 || { tail -n 20 "$work/prepare.log" >&2; die 69 "no $release here from $mirror"; }
echo "distro.sh: $release from $mirror, $(git -C "$root/src" log -1 --format='commit %h: %s')"
[ -e "$deps" ] || [ -z "$only" ] || only="deps,$only"
step deps install_deps
[ ${#failed[@]} -eq 0 ] || exit 1

step quickstart offline "$root" 3600 'cd /src && ./deploy/quickstart.sh --steps 40'
step build inside "$root" 3600 'cd /src && cmake --preset dev && cmake --build --preset dev -j "$JOBS"'
step unit offline "$root" 1800 'cd /src && ctest --test-dir build/dev -L "^(unit|kernels|golden|replay|crash)$" -j "$JOBS" --output-on-failure --timeout 300'
# A chroot has no init, and slurm.sh and the browser's test start services of the host.
step system offline "$root" 5400 'cd /src && ctest --test-dir build/dev -j $((JOBS * 4)) -L "^system$" -R "$1" -E "system/(slurm|exporter_page)$" --output-on-failure --timeout 600' "$tests"

make_package() {
	inside "$root" 3600 '
		apt-get -qq -y --no-install-recommends install debhelper lintian > /dev/null
		cd /src
		dpkg-buildpackage -b -us -uc -j"$JOBS"
		lintian --fail-on error --no-tag-display-limit ../saltfleet_*.changes
		apt-get -qq -y --no-install-recommends install ../libsaltfleet1_*.deb ../libsaltfleet-dev_*.deb > /dev/null
		for example in /usr/share/doc/libsaltfleet-dev/examples/*.c; do
			cc -std=c17 -D_GNU_SOURCE "$example" -o /tmp/example $(pkg-config --cflags --libs saltfleet) -lm
			/tmp/example nothing.yaml nothing > /tmp/example.log 2>&1 && rc=0 || rc=$?
			[ $rc -eq 66 ] || { echo "$example nothing.yaml: expected 66, found $rc: $(cat /tmp/example.log)"; exit 1; }
		done' || return
	mkdir -p "$work/debs" && cp "$root"/saltfleet_*.deb "$work/debs"
}
# This system has only the dependencies of the package: no compiler, no source.
use_package() {
	local plain=$work/plain
	system_new "$plain" "$base" && cp "$work"/debs/saltfleet_*.deb "$plain/mnt" || return
	inside "$plain" 3600 '
		apt-get -qq update
		apt-get -qq -y --no-install-recommends install /mnt/saltfleet_*.deb perl-doc > /dev/null
		if command -v gcc || command -v cmake; then echo "expected a system without compilers"; exit 1; fi
		saltctl --version
		getent passwd saltfleet' &&
	offline "$plain" 3600 'cd /mnt && /usr/share/saltfleet/deploy/quickstart.sh --steps 40' &&
	inside "$plain" 600 '
		apt-get -qq -y remove saltfleet > /dev/null
		if [ -e /usr/bin/saltctl ]; then echo "expected no /usr/bin/saltctl after removal"; exit 1; fi'
}
step package make_package
[ ! -d "$work/debs" ] || step installed use_package

printf '\n%s\n' "$release:"
printf '  %s\n' "${table[@]}"
[ ${#failed[@]} -eq 0 ]
