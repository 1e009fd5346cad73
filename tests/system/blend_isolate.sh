# SPDX-License-Identifier: Apache-2.0
# A blend with isolated documents. Losses are the same at R = 1 and 2; the score of a document depends neither on the parts beside its own nor on the
# documents beside it in its sequences; `scores export` from the cache and from the model agree over a blend; `cache drop` drops what the plan of a blend
# does not need and leaves what it needs.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
ctl() { timeout 60 "$BIN/saltctl" "$@"; }
cd "$scratch"
small_corpus
for part in "a GPL-2 GPL-3" "b GFDL-1.2"; do
	read -r name texts <<< "$part"
	ctl corpus build --split-on blank-lines --tokenizer "$SOURCE/share/tokenizer-4k" --out "$name" $(printf '/usr/share/common-licenses/%s ' $texts) > /dev/null
done
# c: every second document of a, and in the places of the others documents of the same lengths with other ids.
python3 - <<'END'
import array, json, shutil
shutil.copy("a.idx", "c.idx")
ids, number = array.array("H", open("a.bin", "rb").read()), 0
for i, x in enumerate(ids):
    if number % 2 and x != 0:
        ids[i] = 1 + (x + 1234) % 4000
    number += x == 0                # 0 ends documents
open("c.bin", "wb").write(ids.tobytes())
about = json.load(open("a.json"))
for member in ("check", "fingerprint", "counts", "source", "n_bytes"):
    about.pop(member, None)
json.dump({**about, "version": 1}, open("c.json", "w"))
END
small_model teacher 1
small_model scorer 4
small_model student -
small_fleet fleet.yaml "$(free_port)"
sed -i 's|^corpus: .*|corpus: {train: [{prefix: a, weight: 3}, {prefix: b, weight: 2}], heldout: held, context: 32, isolate_documents: true}|' fleet.yaml
sed -i 's/steps: 12, /steps: 8, /; s/k: 200/k: 255/; s/phase_one: {steps: 6/phase_one: {steps: 4/' fleet.yaml

# ---- training
start selectord "$BIN/selectord" -c fleet.yaml
start teacherd "$BIN/teacherd" -c fleet.yaml
until_line teacherd.log 'selectord.welcome'
for r in 1 2; do
	timeout 100 "${mpirun[@]}" -n $r "$BIN/trainerd" -c fleet.yaml --set run.dir=run_$r > trainer_$r.log 2>&1 || fail "trainerd at R = $r: $(tail -3 trainer_$r.log)"
	losses run_$r/metrics.jsonl | grep -v '"kind":"run"' | sed 's/,"label_bytes".*//' > losses_$r
done
same losses_1 losses_2 "isolated documents of a blend at R = 2"
grep -q '"step":8,' losses_1 || fail "no eighth step: $(cat losses_1)"
stop TERM $teacherd $selectord

# ---- scores: of a blend, of its parts alone, and of a blend in which the neighbours of documents are others
export_() {
	local name=$1
	shift
	ctl scores export -c fleet.yaml --threads 1 "$@" --documents $name.documents $name.scores > export.log || fail "export $name: $(tail -2 export.log)"
}
export_ cached
export_ blend --model scorer
export_ a --model scorer --set corpus.train=a
export_ b --model scorer --set corpus.train=b
export_ other --model scorer --set 'corpus.train=[{prefix: c, weight: 3}, {prefix: b, weight: 2}]'
python3 - <<'END'
import array, json
def lines(name):
    return [json.loads(x) for x in open(name)]
def rows(name):
    return {x["sequence"]: x for x in lines(name + ".scores")}
def figures(x):
    return {k: v for k, v in x.items() if k not in ("sequence", "begin", "end")}
blend, a, b, cached, other = (rows(x) for x in ("blend", "a", "b", "cached", "other"))
assert len(blend) == len(a) + len(b) and 0 < len(cached) <= len(blend), (len(blend), len(a), len(b), len(cached))
for i, x in blend.items():
    want = a[i] if i < len(a) else b[i - len(a)]
    assert figures(x) == figures(want), (x, want)
assert all(figures(x) == figures(blend[i]) for i, x in cached.items())
changed = sum(figures(blend[i]) != figures(other[i]) for i in range(len(a)))
assert changed > len(a) / 2 and all(figures(blend[i]) == figures(other[i]) for i in blend if i >= len(a)), (changed, len(a))
END
python3 - <<'END'
import json
def documents(name):
    return {x["document"]: {k: v for k, v in x.items() if k not in ("document", "begin", "end")} for x in map(json.loads, open(name + ".documents"))}
blend, a, b, other = (documents(x) for x in ("blend", "a", "b", "other"))
n = json.load(open("a.json"))["n_documents"]
assert n - 2 <= max(a) < n, (n, max(a))
assert blend == {**a, **{n + d: x for d, x in b.items()}}, [d for d in blend if blend[d] != {**a, **{n + d: x for d, x in b.items()}}.get(d)]
assert other.keys() == blend.keys()
assert all(other[d] == x for d, x in blend.items() if d % 2 == 0 or d >= n), "a document depends on those beside it"
assert sum(other[d] != x for d, x in blend.items() if d % 2 and d < n) > 80
END

# ---- labels that no plan needs: phase one is over, and the checkpoints of both runs need its steps only from step 3 on
# number MEMBER FILE
number() { python3 -c 'import json, sys; x = json.load(open(sys.argv[2])); print((x[0] if isinstance(x, list) else x)[sys.argv[1]])' "$@"; }
ctl cache drop -c fleet.yaml --json > count.json || fail "drop: $(cat count.json)"
[ $(($(number kept count.json) + $(number labels count.json))) = 32 ] && [ "$(number kept count.json)" = 8 ] || fail "drop would drop: $(cat count.json)"
ctl cache drop -c fleet.yaml --write --json > drop.json || fail "drop --write: $(cat drop.json)"
[ "$(number labels drop.json)" = 24 ] || fail "drop --write: $(cat drop.json)"
ctl cache fsck -c fleet.yaml > fsck.txt || fail "fsck after drop: $(cat fsck.txt)"
ctl cache export -c fleet.yaml ex > /dev/null
ctl cache reselect -c fleet.yaml --rows rows.tsv > /dev/null || fail "reselect after drop"
python3 - <<'END'
import glob, json, struct
kept = set()
for entry in json.load(open("ex/manifest.json"))["labels"]["files"]:
    raw = open("ex/" + entry["file"], "rb").read()
    n, = struct.unpack("<Q", raw[:8])
    head = json.loads(raw[8:8 + n])["seq"]["data_offsets"]
    kept |= set(struct.unpack(f"<{(head[1] - head[0]) // 8}Q", raw[8 + n + head[0]:8 + n + head[1]]))
rows = [[int(x) for x in line.split("\t")[:3]] for line in open("rows.tsv")]
want = {seq for row, position, seq in rows if row // 8 == 3}       # the step after the checkpoint of step 3
assert kept == want and len(want) == 8, (kept, want)
END
