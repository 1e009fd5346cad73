#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bench/load.sh: its output for recorded figures and for a process that really computes at the same time, and the marks in rows.
# Usage: bench_load.sh SOURCE
set -u
failures=0
fail() {
	echo "FAIL: $*"
	failures=1
}
dir=$(mktemp -d)
trap 'kill $other 2> /dev/null; rm -rf "$dir"' EXIT
other=
. "$1/bench/load.sh"

# says WANT BEFORE AFTER OWN
says() {
	local got
	got=$(load_verdict "$2" "$3" "$4")
	[ "$got" = "$1" ] || fail "of \"$2\" and \"$3\", own $4: \"$got\", expected \"$1\""
}
# Ten seconds in which the processors worked for 20 s, all of it for the bench; then 15 s of it; then with time taken by the hypervisor.
says '' '100.0 500 3.0 1.0' '110.0 520 3.0 9.0' 20
says '' '100.0 500 3.0 1.0' '110.0 520 3.0 9.0' 19.1
says 'other processes used 0.50 processors, the hypervisor took 0.00, 80 % of the time a thread waited for a processor' \
	'100.0 500 3.0 1.0' '110.0 520 3.0 9.0' 15
says 'other processes used 0.50 processors, the hypervisor took 0.00' '100.0 500 3.0 -' '110.0 520 3.0 -' 15
says 'other processes used 0.00 processors, the hypervisor took 0.20' '100.0 500 3.0 -' '110.0 520 5.0 -' 20
says '' '100.0 500 3.0 -' '100.0 500 3.0 -' 0

# This process computes, and the shell waits for it only afterwards, so its time counts as that of another process. Other load of the machine can only
# add to it.
while :; do :; done &
other=$!
load_begin "$dir/a"
sleep 1
load_end "$dir/a"
[ -n "$disturbed" ] || fail "a process that computed all the time was not noticed"
kill $other
wait $other 2> /dev/null
load_begin "$dir/a"
[ "$(awk -v s="$children" 'BEGIN { print (s > 0.1) }')" = 1 ] || fail "children that were waited for used $children s"

# Both formats that the benches write.
cat > "$dir/rows.json" <<'END'
[
  {"name": "a", "value": 1, "unit": "x", "peer": null, "peer_value": null, "ratio": null},
  {
    "name": "b",
    "peer_value": 2.5,
    "ratio": 0.4
  },
  {"name": "c", "ratio": null, "why": "none, none}"}
]
END
load_mark "$dir/rows.json" 'other processes used 0.50 processors'
python3 - "$dir/rows.json" <<'END' || fail "rows are not marked: $(cat "$dir/rows.json")"
import json, sys
rows = json.load(open(sys.argv[1]))
assert [r["disturbed"] for r in rows] == ["other processes used 0.50 processors"] * 3, rows
assert [r["ratio"] for r in rows] == [None, 0.4, None] and rows[2]["why"] == "none, none}", rows
END
exit $failures
