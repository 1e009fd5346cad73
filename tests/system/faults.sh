# SPDX-License-Identifier: Apache-2.0
# The short form of tests/torture/faults: the first and the last call of each kind fails, in every verb that writes; for each daemon, calls of one
# kind.
. "$(dirname "$0")/lib.sh"
rc=0
SCRATCH=$scratch python3 "$SOURCE/tests/torture/faults" 2 $((RANDOM)) > "$scratch.line" 2> "$scratch.log" || rc=$?
cat "$scratch.line"
[ $rc = 0 ] || cat "$scratch.log"
rm -f "$scratch.line" "$scratch.log"
exit $rc
