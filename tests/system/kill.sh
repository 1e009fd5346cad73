# SPDX-License-Identifier: Apache-2.0
# The short form of tests/torture/kill: 50 kills -9 of daemons and verbs, at named points and at random times.
. "$(dirname "$0")/lib.sh"
SCRATCH=$scratch python3 "$SOURCE/tests/torture/kill" 50 $((RANDOM))
