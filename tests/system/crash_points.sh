# SPDX-License-Identifier: Apache-2.0
# The preset release has no crash points (base/err/crash.h): neither the variable's name nor the names of the points are in its compiled files. Only
# the libraries whose sources have such points are built.
. "$(dirname "$0")/lib.sh"
sources=$(cd "$SOURCE" && grep -rlE 'crash_point\(' --include='*.c' common selectord teacherd trainerd saltctl)
[ "$(wc -l <<< "$sources")" -ge 15 ] || fail "expected at least 15 files with crash points, found: $sources"
names=$(cd "$SOURCE" && grep -rhoE 'crash_point\("[^"]*"' $sources | cut -d'"' -f2 | sort -u)
[ "$(wc -l <<< "$names")" -ge 40 ] || fail "expected at least 40 crash points, found: $names"
(cd "$SOURCE" && cmake --preset release -B "$scratch/release") > "$scratch/log" 2>&1 || fail "cmake --preset release: $(tail -n 5 "$scratch/log")"
ninja -C "$scratch/release" -t targets all > "$scratch/targets"
objects=
for s in $sources; do
	o=$(awk -F: -v s="$s.o" '{ t = $1; sub(/CMakeFiles\/[^\/]*\.dir\//, "", t); if (t == s) print $1 }' "$scratch/targets")
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
