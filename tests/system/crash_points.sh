# SPDX-License-Identifier: Apache-2.0
# Preset release has no crash points (base/err/crash.h): neither the variable's name nor the names of the points are in what it compiles.
# Only the libraries whose sources have such points are built.
. "$(dirname "$0")/lib.sh"
sources=$(cd "$SOURCE" && grep -rlE 'crash_point\(' --include='*.c' common selectord teacherd trainerd saltctl)
[ "$(wc -l <<< "$sources")" -ge 6 ] || fail "expected at least 6 files with crash points, found: $sources"
names=$(cd "$SOURCE" && grep -rhoE 'crash_point\("[^"]*"' $sources | cut -d'"' -f2 | sort -u)
[ "$(wc -l <<< "$names")" -ge 14 ] || fail "expected at least 14 crash points, found: $names"
(cd "$SOURCE" && cmake --preset release -B "$scratch/release") > "$scratch/log" 2>&1 || fail "cmake --preset release: $(tail -n 5 "$scratch/log")"
objects=
for s in $sources; do
	o=$(ninja -C "$scratch/release" -t targets all | sed -nE "s#^([^:]*/$(basename "$s")\.o): .*#\1#p" | grep -F "$(dirname "$s")/CMakeFiles/")
	[ -n "$o" ] || fail "no object of $s in the release build"
	objects="$objects $o"
done
ninja -C "$scratch/release" $objects > "$scratch/log" 2>&1 || fail "release objects: $(tail -n 5 "$scratch/log")"
cd "$scratch/release"
strings -a $objects > "$scratch/strings"
grep -F SALT_CRASH "$scratch/strings" && fail "the name of the variable is in a release build"
for name in $names; do
	! grep -Fx "$name" "$scratch/strings" || fail "$name is in a release build"
done
! nm $objects | grep -w crash_point || fail "crash_point is in a release build"
