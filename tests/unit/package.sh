#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Checks that debian/ agrees with the source: debian/changelog has the version of CMakeLists.txt, and Build-Depends lists the packages that
# install-deps.sh installs for the build. Usage: package.sh SOURCE
set -u
failures=0
fail() {
	echo "FAIL: $*"
	failures=1
}
check() {	# check FOLDER
	local version first there here
	version=$(sed -nE 's/^project\(.* VERSION ([0-9.]+) .*/\1/p' "$1/CMakeLists.txt")
	first=$(sed -nE '1s/^saltfleet \(([^)]*)\) .*/\1/p' "$1/debian/changelog")
	[ -n "$version" ] && [ "$first" = "$version" ] ||
		fail "debian/changelog: expected version ${version:-of project() in CMakeLists.txt} in the first line, found ${first:-none}"
	# debhelper is needed for the package only; build-essential is always present when a package is built
	there=$(sed -n '/^Build-Depends:/,/^$/p' "$1/debian/control" | sed 's/^Build-Depends://; s/ *(.*)//; s/[ ,]//g' |
		grep -vE '^(debhelper|dh-).*|^$' | sort)
	here=$(sed -n '/^for_build=/,/^)/p' "$1/deploy/install-deps.sh" | sed '1d; $d; s/#.*//' | tr -s ' \t' '\n' |
		grep -vxE 'build-essential|' | sort)
	[ "$(wc -l <<< "$there")" -ge 20 ] || fail "debian/control: expected at least 20 packages in Build-Depends, found $there"
	[ "$there" = "$here" ] || fail "Build-Depends of debian/control (<) and for_build of deploy/install-deps.sh (>) differ:
$(diff <(echo "$there") <(echo "$here"))"
}

# The check can fail: another version, or one package less on either side.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
for change in 'CMakeLists.txt s/VERSION [0-9.]+/VERSION 9.9.9/' 'debian/control /libzstd-dev/d' 'deploy/install-deps.sh s/libyaml-dev//'; do
	mkdir -p "$copy"/{debian,deploy}
	for file in CMakeLists.txt debian/control debian/changelog deploy/install-deps.sh; do cp "$1/$file" "$copy/$file"; done
	sed -Ei "${change#* }" "$copy/${change%% *}"
	out=$(failures=0; check "$copy")
	[ -n "$out" ] || fail "not found: $change"
done
check "$1"
exit $failures
