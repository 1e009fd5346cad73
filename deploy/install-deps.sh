#!/bin/bash -p
# SPDX-License-Identifier: Apache-2.0
# install-deps.sh [--tests] [--check] - installs what the build, the quickstart and nearly all tests need on
# Debian 12 and 13. --tests adds large packages that single tests use (Slurm on one node, Prometheus,
# Chromium, systemd's tools, sshd, clang); those tests skip without them. Installs as root or through sudo. Selects
# the OpenMP build of OpenBLAS, because it shares its threads with the kernels; another build starts a second
# pool of threads that competes with them. --check only reports what is missing. The script can be run
# repeatedly. Exit code: 0 all installed; 1 --check found something missing; 69 no apt; 77 neither root nor
# sudo; otherwise apt's.
set -u
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
. "$here/shell.sh"

for_build=(		# Build-Depends in debian/control lists the same; the test unit/package compares them
	build-essential cmake ninja-build pkg-config
	protobuf-c-compiler protobuf-compiler libprotobuf-c-dev	# messages
	libzmq3-dev						# sockets, keys
	liblmdb-dev						# the cache
	libopenmpi-dev openmpi-bin				# ranks of the trainer
	libopenblas-openmp-dev					# matrix products
	libdnnl-dev						# matrix products in bf16
	libpcre2-dev libutf8proc-dev				# tokenizer
	libjansson-dev libyaml-dev libxxhash-dev		# files
	zlib1g-dev libbz2-dev liblzma-dev libzstd-dev		# compressed text
	uthash-dev						# hash tables and lists
	libisal-dev						# checksum of TensorBoard's files
	libncurses-dev						# saltctl top
	libmicrohttpd-dev					# saltctl exporter
	libsystemd-dev						# readiness and watchdog under systemd
)
for_use=(
	libjs-chart.js						# the charts of saltctl exporter's page
	perl-doc						# the text that the quickstart trains on
	git							# the source
	python3 python3-venv					# tests and fixtures only
	iproute2 procps curl					# system tests
)
packages=("${for_build[@]}" "${for_use[@]}")
for_tests=(slurm-wlm munge tmux groff-base prometheus chromium chromium-driver python3-zmq systemd openssh-server rsync
	clang libclang-rt-dev libomp-dev)			# the fuzz targets under libFuzzer (tests/fuzz)

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

# Alternatives of OpenBLAS that do not point to the OpenMP build, as "NAME PATH".
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
	echo "install-deps: apt is not available; install the packages that Debian 12 and 13 call: ${packages[*]}" >&2
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
	# After a failed update the package lists of an earlier one may be enough.
	"${as_root[@]}" apt-get -qq update || echo "install-deps: apt-get update failed; continuing with the existing package lists" >&2
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
