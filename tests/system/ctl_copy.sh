# SPDX-License-Identifier: Apache-2.0
# corpus show, merge, split, sample: documents are compared with a plain reading of the index in Python; the sources of a sequence; errors name their
# cause.
. "$(dirname "$0")/lib.sh"
tok="$SOURCE/share/tokenizer-4k"
ctl() { timeout 100 "$BIN/saltctl" "$@"; }
cd "$scratch"
mkdir a b
for n in 1 2 3 4 5 6 7 8 9; do
	printf 'File %d of the first folder.\n\nIts second paragraph.\n' $n > a/$n.txt
	seq -s ' ' $n 40 > b/$n.txt
done
: > a/empty.txt
ctl corpus build --split-on blank-lines --tokenizer "$tok" --out A a > /dev/null
ctl corpus build --tokenizer "$tok" --out B b > /dev/null

# lists OF: the documents of a corpus, each as a line of ids, read by Python from PREFIX.idx and PREFIX.bin.
cat > read.py <<'END'
import struct, sys
def documents(prefix):
    idx, data = open(prefix + ".idx", "rb").read(), open(prefix + ".bin", "rb").read()
    n, m = struct.unpack_from("<QQ", idx, 18)
    sizes = struct.unpack_from(f"<{n}i", idx, 34)
    pointers = struct.unpack_from(f"<{n}q", idx, 34 + 4 * n)
    assert m == n + 1
    return [struct.unpack_from(f"<{s}H", data, p) for s, p in zip(sizes, pointers)]
END
[ "$(wc -l < A.sources.jsonl)" = 11 ] && [ "$(wc -l < B.sources.jsonl)" = 11 ] || fail "side files: $(cat A.sources.jsonl)"

# ---- merge
ctl corpus merge --out M A B > said
ctl corpus split --out P=2 --out Q=1 --seed 5 M > said
ctl corpus sample --documents 7 --seed 2 --out S M > said
ctl corpus sample --tokens 200 --out T M > said
ctl corpus split --out P2=2 --out Q2=1 --seed 5 M > said
same P.bin P2.bin "the same seed"
python3 - <<'END' || fail "documents are not those of the sources"
from read import documents as docs
a, b, m, p, q, s, t = (docs(x) for x in "ABMPQST")
assert len(a) == 18 and len(b) == 9 and m == a + b, (len(a), len(b), len(m))
assert sorted(p + q) == sorted(m) and p and q and len(p) > len(q), (len(p), len(q))
def inside(part, whole):        # in the order of the whole, each once
    at = iter(whole)
    return all(any(d == x for x in at) for d in part)
assert inside(p, m) and inside(q, m) and inside(s, m) and len(s) == 7 and inside(t, m)
assert 200 <= sum(map(len, t)) < 200 + max(map(len, m)), sum(map(len, t))
END
for much in '--documents 28' '--tokens 99999'; do
	ctl corpus sample $much --out all M > said 2> err || fail "sample of more than there is: $(cat err)"
	grep -q "warning: M has only 27 documents, .*fewer than ${much%% *} says" err || fail "sample $much: $(cat err)"
	same all.bin M.bin "a sample of everything"
	rm all.*
done
ctl corpus sample --documents 27 --out all M > said 2> err && [ ! -s err ] || fail "sample of all: $(cat err)"
got=0; ctl corpus split --out R=2 --out R=1 M > said 2> err || got=$?
[ $got = 64 ] && grep -q 'found R twice' err && [ -z "$(ls R.* 2> /dev/null)" ] || fail "split into one corpus twice: $got $(cat err; ls R.*)"
for x in M P Q S T; do ctl corpus info "$x" --check > info || fail "corpus info $x"; grep -q 'all blocks' info || fail "check of $x"; done
[ "$(ctl corpus info A --json | grep -o '"tokenizer": "[^"]*"')" = "$(ctl corpus info S --json | grep -o '"tokenizer": "[^"]*"')" ] || fail "tokenizer of a sample"

# ---- show: of one corpus and of a blend, with the files
list="[{prefix: A, weight: 1}, {prefix: B, weight: 3}]"
echo "corpus: {train: $list, context: 16}" > fleet.yaml
windows() { echo $((($(stat -c %s "$1.bin") / 2 - 1) / 16)); }
first=$(windows A)
ctl corpus show -c fleet.yaml --tokenizer "$tok" --json 1 "$first" > show.json
ctl corpus show --corpus S --context 8 --json 2 > sample.json
python3 - "$first" <<'END' || fail "corpus show"
import json, sys
from read import documents as docs
one, two = json.load(open("show.json"))
for s, name, window, files in ((one, "A", 1, "a/%d.txt"), (two, "B", 0, "b/%d.txt")):
    all_docs = docs(name)
    stream = [i for d in all_docs for i in d]
    assert s["prefix"].endswith("/" + name) and s["window"] == window and s["ids"] == stream[16 * window:16 * window + 17], s
    at, want = 0, []
    for k, d in enumerate(all_docs):
        if at < 16 * window + 17 and at + len(d) > 16 * window:
            want.append((k, at, len(d), files % (1 + k // (2 if name == "A" else 1))))
        at += len(d)
    assert [(d["document"], d["first_token"], d["tokens"], d["file"]) for d in s["documents"]] == want, (s["documents"], want)
assert two["sequence"] == int(sys.argv[1]) and two["text"].startswith("1 2 3 4"), two["text"]
(three,), merged = json.load(open("sample.json")), docs("M")
for d in three["documents"]:        # of a copy: the number there
    assert d["file"].endswith("M") and merged[d["of_file"]] == docs("S")[d["document"]], d
END
ctl corpus show -c fleet.yaml --tokenizer "$tok" 0 > shown
grep -q '^documents  *0, .* from position 0, a/1.txt$' shown && grep -q '^File 1 of the first folder' shown || fail "text: $(cat shown)"
python3 -c 'import struct; open("raw.bin", "wb").write(struct.pack("<40H", *range(40)))'
ctl corpus show --corpus raw.bin --dtype uint16 --context 8 1 > shown 2> /dev/null && grep -q '^ids  *8 9 10 11 12 13 14 15 16$' shown || fail "raw ids: $(cat shown)"
grep -q '^documents' shown && fail "documents of raw ids"

# ---- Documents without a token are left out, and a missing end of document is added, each with a message. The result keeps what PREFIX.json states
# of the encoding.
# where the inputs agree.
python3 - "$tok" <<'END'
import json, struct
from read import documents as docs
about = json.load(open("A.json"))
eod, ids = about["eod"], docs("A")[0]
documents = [ids, (eod,), ids[:3], (), ids[:2] + (eod,)]
open("E.bin", "wb").write(b"".join(struct.pack(f"<{len(d)}H", *d) for d in documents))
n, at, pointers = len(documents), 0, []
for d in documents:
    pointers.append(at)
    at += 2 * len(d)
open("E.idx", "wb").write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, n, n + 1) + struct.pack(f"<{n}i", *map(len, documents)) +
                          struct.pack(f"<{n}q", *pointers) + struct.pack(f"<{n + 1}q", *range(n + 1)))
json.dump({"format": "saltfleet-corpus", "version": 1, "kind": "megatron", "dtype": "uint16", "n_tokens": at // 2, "vocab": about["vocab"], "eod": eod,
           "tokenizer": about["tokenizer"], "add_special": "5 text", "unknown_bytes": "drop"}, open("E.json", "w"))
END
ctl corpus sample --documents 9 --out E1 E > said 2> err
grep -q ': 2 documents without a token were left out' err && grep -q ': 1 documents had no end-of-document token' err && grep -q '3 documents' said ||
	fail "empty documents: $(cat said err)"
grep -q '"add_special": "5 text"' E1.json && grep -q '"unknown_bytes": "drop"' E1.json || fail "a copy states other rules: $(cat E1.json)"
ctl corpus merge --out E2 E1 E1 > said 2> err
[ ! -s err ] && grep -q '"add_special": "5 text"' E2.json || fail "merge of equal corpora: $(cat err E2.json)"
ctl corpus merge --out E3 E1 A > said 2> err
grep -q 'A: "add_special" is "", and "5 text" in the inputs before' err && ! grep -q add_special E3.json && ctl corpus info E3 > /dev/null ||
	fail "merge of corpora with other rules: $(cat err E3.json)"

# ---- errors name their cause
# refused CODE REGEX ARGUMENT...
refused() {
	local code=$1 regex=$2 rc=0
	shift 2
	ctl "$@" > refused.out 2>&1 || rc=$?
	[ $rc -eq "$code" ] && grep -qE -- "$regex" refused.out || fail "$*: $rc, $(cat refused.out)"
}
refused 65 "window below $((first + $(windows B)))" corpus show -c fleet.yaml $((first + $(windows B)))
refused 64 "number of a sequence" corpus show -c fleet.yaml x
refused 64 "context" corpus show --corpus A 0
refused 73 "M.idx" corpus merge --out M A
refused 64 "PREFIX=SHARE" corpus split --out X=0 --out Y=1 M
refused 64 "twice" corpus split --out X=1 M
refused 64 "documents N or --tokens" corpus sample --out X M
refused 65 "vocab" corpus merge --out X raw.bin
cp A.bin C.bin && cp A.idx C.idx && sed 's/"version": 2/"version": 1/; s/"eod": [0-9]*,/"eod": 7,/; /"check"/d; s/\("counts": "[^"]*"\),/\1/' A.json > C.json && cp A.counts.bin C.counts.bin
refused 78 "C: expected the tokenizer, vocabulary and end-of-document id of A" corpus merge --out X A C
grep -qE 'found [0-9a-f]{32}, 4096, 7' refused.out || fail "merge does not show what differs: $(cat refused.out)"
refused 64 'corpus "x/": expected a prefix with a name' corpus merge --out x/ A
refused 64 'corpus "": expected a prefix with a name' corpus split --out =1 --out X=1 A
ls -A x .bin .idx 2> /dev/null && fail "a corpus without a name"
ls X* 2> /dev/null && fail "something was left of what failed"
# A side file of another build is ignored.
ctl corpus build --replace --tokenizer "$tok" --out B b > /dev/null
sed -i '$d' B.sources.jsonl
ctl corpus show --corpus B --context 8 0 > shown && ! grep -q 'b/1.txt' shown || fail "a side file that is cut short: $(cat shown)"
