# SPDX-License-Identifier: Apache-2.0
# The short form of tests/torture/power: files after power cuts while checkpoints, exports and corpora are written. crash/cache_power tests the cache.
. "$(dirname "$0")/lib.sh"
SCRATCH=$scratch python3 "$SOURCE/tests/torture/power" 250 $((RANDOM)) files
