#!/bin/bash
# install-deps.sh [--tests] [--check] - the Debian 12 packages that build, quickstart and nearly all tests need; with --tests also the
# large ones that single tests use (a Slurm of one node, Prometheus, Chromium, systemd's tools, sshd), which skip without them.
# Installs what is missing (as root, or through sudo), and makes the OpenMP build of OpenBLAS the one that programs get: its threads are
# the kernels' own; another build brings a second pool of threads that fights them. --check changes nothing. Run it as often as you like.
# Exit: 0 all there; 1 --check found something missing; 69 no apt; 77 neither root nor sudo; otherwise apt's.
set -u

packages=(
	build-essential cmake ninja-build pkg-config git
	protobuf-c-compiler protobuf-compiler libprotobuf-c-dev	# messages
	libzmq3-dev						# sockets, keys
	liblmdb-dev						# the cache
	libopenmpi-dev openmpi-bin				# ranks of the trainer
	libopenblas-openmp-dev					# matrix products
	libdnnl-dev						# matrix products in bf16
	libpcre2-dev libutf8proc-dev				# tokenizer
	libjansson-dev libyaml-dev libxxhash-dev libzstd-dev	# files
	uthash-dev	# hash tables and lists
	libisal-dev						# checksum of TensorBoard's files
	libncurses-dev						# saltctl top
	libmicrohttpd-dev libjs-chart.js			# saltctl exporter and the charts of its page
	libsystemd-dev						# readiness and watchdog under systemd
	perl-doc						# the text that quickstart trains on
	python3 python3-venv					# tests and fixtures only
	iproute2 procps curl					# system tests
)
for_tests=(slurm-wlm munge tmux groff-base prometheus chromium chromium-driver python3-zmq systemd openssh-server rsync)

check=0
for arg; do
	case "$arg" in
	--check) check=1 ;;
	--tests) packages+=("${for_tests[@]}") ;;
	*) echo "usage: $0 [--tests] [--check]" >&2; exit 64 ;;
	esac
done

present() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing_now() {
	missing=()
	local p
	for p in "${packages[@]}"; do
		present "$p" || missing+=("$p")
	done
}

# Alternatives of OpenBLAS that do not lead to the OpenMP build, as "NAME PATH".
wrong_blas() {
	local name lib at
	command -v update-alternatives >/dev/null || return 0
	update-alternatives --get-selections 2>/dev/null | while read -r name _ at; do
		case "$name" in
		libopenblas.so-* | libopenblas.so.0-*) ;;
		*) continue ;;
		esac
		lib=$(update-alternatives --list "$name" 2>/dev/null | grep -m1 /openblas-openmp/) || continue
		[ "$at" = "$lib" ] || echo "$name $lib"
	done
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo "install-deps: no apt here; needed are the packages that Debian 12 calls: ${packages[*]}" >&2
	exit 69
fi

missing_now
blas=$(wrong_blas)
if [ ${#missing[@]} -eq 0 ] && [ -z "$blas" ]; then
	echo "install-deps: all ${#packages[@]} packages are installed"
	exit 0
fi
[ ${#missing[@]} -eq 0 ] || echo "install-deps: missing: ${missing[*]}"
[ -z "$blas" ] || echo "install-deps: OpenBLAS in use is not the OpenMP build: $(echo "$blas" | cut -d' ' -f1 | xargs)"
[ $check -eq 0 ] || exit 1

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "install-deps: not root and no sudo; as root: apt-get install ${missing[*]}" >&2
		exit 77
	fi
	as_root=(sudo)
fi

if [ ${#missing[@]} -gt 0 ]; then
	# A failed update is no end: the lists at hand may do.
	"${as_root[@]}" apt-get -qq update || echo "install-deps: apt-get update failed; going on with the lists there are" >&2
	echo "install-deps: installing ${missing[*]}"
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null
	rc=$?
	missing_now
	if [ ${#missing[@]} -gt 0 ]; then
		echo "install-deps: still missing: ${missing[*]}" >&2
		[ $rc -ne 0 ] || rc=1
		exit $rc
	fi
fi

wrong_blas | while read -r name lib; do
	echo "install-deps: $name -> $lib"
	"${as_root[@]}" update-alternatives --set "$name" "$lib" >/dev/null </dev/null
done
if [ -n "$(wrong_blas)" ]; then
	echo "install-deps: OpenBLAS in use is still not the OpenMP build; see update-alternatives --get-selections" >&2
	exit 1
fi
echo "install-deps: all ${#packages[@]} packages are installed"
