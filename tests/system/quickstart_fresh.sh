# SPDX-License-Identifier: Apache-2.0
# quickstart.sh --fresh deletes the files of an earlier call, and nothing in a folder that quickstart did not make.
. "$(dirname "$0")/lib.sh"

# refused NAME: --fresh is refused in $scratch/mine, which contains NAME and was not made by quickstart.
refused() {
	local rc=0
	rm -rf "$scratch/mine"
	mkdir -p "$scratch/mine/$1"
	echo precious > "$scratch/mine/$1/file"
	BIN=$BIN timeout 60 "$SOURCE/deploy/quickstart.sh" --no-build --fresh --dir "$scratch/mine" --steps 16 > "$scratch/out" 2>&1 || rc=$?
	[ $rc = 73 ] && grep -q -- "--fresh would delete .*/mine/$1, and .* was not made by this script; give another --dir" "$scratch/out" ||
	    fail "--fresh in a folder with $1: exit code $rc: $(tail -3 "$scratch/out")"
	[ "$(cat "$scratch/mine/$1/file")" = precious ] || fail "--fresh deleted $1 of somebody else"
}
for name in data models slm salt baseline cache; do refused $name; done

# A folder of quickstart with other settings: an error without --fresh; with it the old files are deleted, and a file of the user stays.
mkdir -p "$scratch/own/models"
echo "steps 99 size small" > "$scratch/own/settings"
echo precious > "$scratch/own/notes"
echo old > "$scratch/own/models/file"
rc=0
BIN=$BIN timeout 60 "$SOURCE/deploy/quickstart.sh" --no-build --dir "$scratch/own" --steps 16 --size small > "$scratch/out" 2>&1 || rc=$?
[ $rc = 64 ] && grep -q 'was made with steps 99 size small, not SALT muon steps 16 size small; give --fresh' "$scratch/out" || fail "other settings: $rc: $(tail -3 "$scratch/out")"
[ -e "$scratch/own/models/file" ] || fail "deleted without --fresh"
# it continues to the corpus, and is stopped there after it has written its settings
BIN=$BIN "$SOURCE/deploy/quickstart.sh" --no-build --fresh --dir "$scratch/own" --steps 16 --size small > "$scratch/out" 2>&1 & pid=$!
for ((i = 0; i < 600; i++)); do [ "$(cat "$scratch/own/settings" 2> /dev/null)" != "SALT muon steps 16 size small" ] || break; sleep 0.1; done
kill $pid 2> /dev/null || true
wait $pid || true
[ ! -e "$scratch/own/models/file" ] && [ "$(cat "$scratch/own/notes")" = precious ] || fail "--fresh in its own folder: $(ls -R "$scratch/own" | head -20)"
[ "$(cat "$scratch/own/settings")" = "SALT muon steps 16 size small" ] || fail "settings: $(cat "$scratch/own/settings"): $(tail -3 "$scratch/out")"
