# SPDX-License-Identifier: Apache-2.0
# A blend of three corpora. Losses are bit-identical at R = 1, 2 and 4 ranks, when the run is stopped and resumed in each phase, and when one teacher
# starts late and another one later. Rows follow the weights, the cache's tools work on a blend, and errors name the entry of the list.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"

# part NAME TEXT...
part() {
	local name=$1
	shift
	"$BIN/saltctl" corpus build --split-on blank-lines --tokenizer "$SOURCE/share/tokenizer-4k" --out "$name" \
		"${@/#//usr/share/common-licenses/}" > /dev/null || fail "saltctl corpus build $name"
}
small_corpus
part a GPL-1 GPL-2 GPL-3
part b GFDL-1.2 GFDL-1.3
part c BSD			# one epoch is a few sequences, so phase one repeats it many times
small_model "$scratch/student" -
small_fleet fleet.yaml "$(free_port)" "$(free_port)"
sed -i 's|^corpus: .*|corpus:\n  train:\n  - {prefix: a, weight: 0.5}\n  - {prefix: b, weight: 0.3}\n  - {prefix: c, weight: 0.2}\n  heldout: held\n  context: 32|' fleet.yaml
sed -i 's/steps: 12,/steps: 20,/; s/phase_one: {steps: 6/phase_one: {steps: 12/; $a compute: {dtype: fp32}' fleet.yaml
small_teachers fleet.yaml

shards() {
	start shard0 "$BIN/selectord" -c fleet.yaml --shard 0 "$@"
	start shard1 "$BIN/selectord" -c fleet.yaml --shard 1 "$@"
}
# train RANKS NAME OPTION...: in run NAME.
train() {
	local n=$1 name=$2
	shift 2
	timeout 100 "${mpirun[@]}" -n "$n" "$BIN/trainerd" -c fleet.yaml --set run.dir="$name" "$@" >> "$name.log" 2>&1
}

# ---- one rank, one teacher, no interruption
shards
start teacherd "$BIN/teacherd" -c fleet.yaml
train 1 one || fail "one rank: $(tail -1 one.log)"
losses one/metrics.jsonl > one.losses
stop TERM $teacherd $shard0 $shard1
"$BIN/saltctl" cache fsck -c fleet.yaml > fsck.out || fail "fsck: $(cat fsck.out)"

# ---- which rows were trained: they are chosen separately in each part, so they have the shares of the weights
"$BIN/saltctl" cache reselect -c fleet.yaml --rows rows.tsv > /dev/null || fail "reselect"
"$BIN/saltctl" plan -c fleet.yaml --json > plan.json || fail "plan"
python3 - "$SOURCE" <<'END' || fail "rows or plan are not those of the weights"
import json, sys
sys.path.insert(0, sys.argv[1] + "/tests/golden")
from order_of import order
plan = json.load(open("plan.json"))["corpora"]
n = [p["sequences_there"] for p in plan]
assert [p["share"] for p in plan] == [0.5, 0.3, 0.2] and [p["sequences"] for p in plan] == [80, 48, 32], plan
assert plan[2]["epochs"] == 32 / n[2] > 1, plan
# A plain implementation of Megatron's rule; the order within a part follows the description in docs/formats.md.
def stream(length, weights=(5, 3, 2), seed=3):
    taken, total = [0, 0, 0], sum(weights)
    for p in range(length):
        q = max(p % total, 1)
        behind = [w * q - total * (taken[i] - p // total * w) for i, w in enumerate(weights)]
        i = behind.index(max(behind))
        yield i, sum(n[:i]) + order(seed + i, n[i], taken[i])
        taken[i] += 1
s = list(stream(192))
rows = [[int(x) for x in line.split("\t")[:3]] for line in open("rows.tsv")]
assert len(rows) == 96, len(rows)
for row, position, sequence in rows:
    assert s[position][1] == sequence, (row, position, sequence, s[position])
for block in range(6):
    got = [s[p][0] for r, p, q in rows if r // 16 == block]
    want = [i for i, q in s[16 * block:16 * block + 16]]
    assert [got.count(i) for i in range(3)] == [want.count(i) for i in range(3)], (block, got)
END

# ---- two ranks, another cache, at first no teacher, then one; the trainer is stopped in phase one and continues with four ranks and two teachers
other=(--set cache.dir=cache2)
shards "${other[@]}"
start two timeout 100 "${mpirun[@]}" -n 2 "$BIN/trainerd" -c fleet.yaml --set run.dir=many "${other[@]}"
until_line two.log 'event=rows.waiting'
start late "$BIN/teacherd" -c fleet.yaml "${other[@]}" --set selector.label_ahead_steps=1
until_line two.log 'event=checkpoint.* step=3'
stop TERM $two
start later "$BIN/teacherd" -c fleet.yaml "${other[@]}"
train 4 many "${other[@]}" || fail "four ranks: $(tail -1 many.log)"
losses many/metrics.jsonl | grep -v '"event"' > many.losses
grep -v '"event"' one.losses > one.steps
same one.steps many.losses "one rank, and two and four with a stop"
stop TERM $late $later $shard0 $shard1

# ---- stopped in phase two, which needs no other process, and continued with one rank; then the same rows without scores in another order of parts are another plan
start four timeout 100 "${mpirun[@]}" -n 4 "$BIN/trainerd" -c fleet.yaml --set run.dir=many "${other[@]}" --set trainer.steps=40
until_line many/metrics.jsonl '"step":2[2-9]'
stop TERM $four
train 1 many "${other[@]}" --set trainer.steps=40 || fail "one rank, after four: $(tail -1 many.log)"
train 2 one --set trainer.steps=40 || fail "two ranks, after one: $(tail -1 one.log)"
for run in one many; do losses $run/metrics.jsonl | grep -v '"event"' > $run.losses; done
same one.losses many.losses "phase two"
grep -q '"step":40,' one.losses || fail "no step 40"

# ---- errors in a list
# refused NAME CODE REGEX COMMAND...: the command ends with CODE, and its output matches REGEX.
refused() {
	local name=$1 code=$2 regex=$3 rc=0
	shift 3
	timeout 60 "$@" > refused.out 2>&1 || rc=$?
	[ $rc -eq "$code" ] && grep -qE -- "$regex" refused.out || fail "$name: $rc, $(tail -2 refused.out)"
}
echo short | "$BIN/saltctl" corpus build --tokenizer "$SOURCE/share/tokenizer-4k" --out tiny - > /dev/null
sed 's/"tokenizer": "./&0/; s/"tokenizer": "\(.*\).",/"tokenizer": "\1",/; s/"version": 2/"version": 1/; s/"eod": \([0-9]*\),.*/"eod": \1,/' b.json > d.json
for f in bin idx; do cp b.$f d.$f; done
list() { echo "corpus.train=[{prefix: a, weight: 1}, {prefix: $1, weight: $2}]"; }
for daemon in selectord trainerd; do
	refused "a missing part" 66 "$scratch/absent" "$BIN/$daemon" -n -c fleet.yaml --set "$(list absent 1)"
	refused "a weight of 0" 78 "the weight 0 of item 2 \(b\)" "$BIN/$daemon" -n -c fleet.yaml --set "$(list b 0)"
	refused "a part without a window" 65 "$scratch/tiny: expected at least corpus.context \+ 1 = 33 tokens, found [0-9]+" "$BIN/$daemon" -n -c fleet.yaml --set "$(list tiny 1)"
	refused "another tokenizer" 78 "$scratch/d: tokenizer: expected [0-9a-f]+, that of the parts before" "$BIN/$daemon" -n -c fleet.yaml --set "$(list d 1)"
done
refused "the cache of other weights" 78 "cache.dir.*corpus" "$BIN/selectord" -c fleet.yaml --shard 0 --set "corpus.train=[{prefix: a, weight: 2}, {prefix: b, weight: 1}, {prefix: c, weight: 1}]"
