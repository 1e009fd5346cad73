# SPDX-License-Identifier: Apache-2.0
# corpus build and tokenizer: decoding gives the input text again.
. "$(dirname "$0")/lib.sh"
tok="$SOURCE/share/tokenizer-4k"
ctl() { timeout 100 "$BIN/saltctl" "$@"; }
build() { ctl corpus build --tokenizer "$tok" "$@" > "$scratch/said"; }
# text_of PREFIX: the corpus as text, with ends of documents as <|endoftext|>. od reads the ids, not our code.
text_of() { od -An -v -tu2 "$1.bin" | ctl tokenizer decode --tokenizer "$tok"; }
must_fail() {		# must_fail CODE PATTERN ARGUMENT...
	local code=$1 pattern=$2 got=0
	shift 2
	build "$@" 2> "$scratch/err" || got=$?
	[ $got = "$code" ] || fail "corpus build $*: exit code $got, expected $code: $(cat "$scratch/err")"
	grep -q -- "$pattern" "$scratch/err" || fail "corpus build $*: expected \"$pattern\", said: $(cat "$scratch/err")"
}
end='<|endoftext|>'
cd "$scratch"

# Arbitrary bytes through encode and decode, as text and as int32.
head -c 70000 /dev/urandom > random
ctl tokenizer encode --tokenizer "$tok" random | ctl tokenizer decode --tokenizer "$tok" > back
same random back "random bytes"
ctl tokenizer encode --raw --tokenizer "$tok" < random | ctl tokenizer decode --raw --tokenizer "$tok" > back
same random back "random bytes, raw"
ctl tokenizer info --ids "$tok" > tokens
ctl tokenizer info --ids --json "$tok" | python3 -c '
import json, sys
lines, tokens = open("tokens").read().splitlines(), json.load(sys.stdin)
assert [t["id"] for t in tokens] == list(range(4096)) and [t["special"] for t in tokens] == [l.endswith("\tspecial") for l in lines]
for t, line in zip(tokens, lines):
    assert bytes.fromhex(t["bytes"]).decode("latin-1") == line.split("\t")[1].encode().decode("unicode_escape"), (t, line)
' || fail "tokenizer info --ids --json"
ctl tokenizer encode --tokenizer "$tok" /dev/null | cmp -s - <(echo) || fail "nothing is not no ids"
[ "$(ctl tokenizer encode --tokenizer "$tok" <<< "$end" | wc -w)" -gt 2 ] || fail "$end in a text is an id"
[ "$(printf %s "$end" | ctl tokenizer encode --specials --tokenizer "$tok")" = 0 ] || fail "--specials does not see $end"

# Files of a folder in name order, one document each; hidden ones, empty ones and other names left out.
mkdir -p in/b
printf 'one\r\n\r\nstill one' > in/a.txt
printf 'bad \xff\xfe\xc3 bytes, NUL \x00 and %s' "$end" > in/b/x.txt
: > in/empty.txt
printf 'hidden' > in/.hidden.txt
printf 'other' > in/c.dat
build --only '*.txt' --out files in
{ cat in/a.txt; printf %s "$end"; cat in/b/x.txt; printf %s "$end"; } > expected
text_of files > back
same expected back "a folder"
[ "$(od -An -v -w2 -tu2 files.bin | grep -c '^ *0$')" = 2 ] || fail "$end in a text became the end of a document"
ctl corpus info files --check --context 4 --json > info
grep -q '"documents": 2,' info && grep -q "\"text_bytes\": $(($(stat -c %s in/a.txt) + $(stat -c %s in/b/x.txt)))," info || fail "corpus info: $(cat info)"
tokens=$(($(stat -c %s files.bin) / 2))
grep -q "\"windows\": $(((tokens - 1) / 4))" info || fail "windows of $tokens tokens: $(cat info)"

# Other ways to split text into documents.
printf 'a\nb\n\n\r\n\nc\nd' > paragraphs
build --split-on blank-lines --out p paragraphs
[ "$(text_of p)" = "a
b
${end}c
d$end" ] || fail "blank lines: $(text_of p)"
build --split-on lines --out l paragraphs
[ "$(text_of l)" = "a${end}b${end}c${end}d$end" ] || fail "lines: $(text_of l)"
printf 'a\n---\n--- \nb\n---\n' | build --split-on =--- --out m -
[ "$(text_of m)" = "a
$end--- 
b
$end" ] || fail "a mark: $(text_of m)"

# JSON lines; a bad line ends the build, or is counted.
printf '%s\n' '{"text": "x\u00e9", "n": 1}' '{"text": ""}' '' '{"body": "y"}' > j.jsonl
must_fail 65 'j.jsonl: line 4: expected an object with the text field "text"' --out j j.jsonl
[ -z "$(ls j.bin* j.idx* 2>/dev/null)" ] || fail "a failed build left files"
build --skip-bad-lines --out j j.jsonl
[ "$(text_of j)" = "xé$end" ] || fail "JSON lines: $(text_of j)"
grep -q '1 bad lines' said || fail "bad lines are not counted"
build --field body --jsonl --skip-bad-lines --out j2 - < j.jsonl
[ "$(text_of j2)" = "y$end" ] || fail "--field: $(text_of j2)"

# zstd, two frames in one file ("zstd of "first\n", then of "second\n"), also from a pipe; truncated.
base64 -d <<< 'KLUv/SAGMQAAZmlyc3QKKLUv/SAHOQAAc2Vjb25kCg==' > z.zst
build --split-on lines --out z z.zst
[ "$(text_of z)" = "first${end}second$end" ] || fail "zstd: $(text_of z)"
cat z.zst | build --out z2 -
[ "$(text_of z2)" = "first
second
$end" ] || fail "zstd from a pipe: $(text_of z2)"
head -c 20 z.zst > cut.zst
must_fail 65 'cut.zst: byte 20: expected the rest of the zstd data' --out zc cut.zst
printf 'not zstd' > no.zst
must_fail 65 'expected zstd data, because the name ends in .zst' --out zc no.zst

# A cloned data folder: the first bytes of each file decide how it is read, and the result shows what was read and what was left out.
mkdir -p cloned/.git
printf '{"text": "one", "score": NaN}\n{"text": "two"}\n' > lines
echo '[{"text": "three"}, {"text": "four"}]' > cloned/c.json
printf 'PAR1 and more' > cloned/d.parquet
printf '# About\n' > cloned/README.md
gzip -c lines > cloned/a.json.gz
xz -c lines > cloned/b.jsonl
build --out cloned_c cloned
[ "$(text_of cloned_c)" = "# About
${end}one${end}two${end}one${end}two${end}three${end}four$end" ] || fail "a cloned folder: $(text_of cloned_c)"
for line in '1 read as plain text: cloned/README.md' '3 read as JSON: cloned/a.json.gz, cloned/b.jsonl, cloned/c.json' \
	'1 files left out, not text: cloned/d.parquet: a Parquet file' '1 left out, hidden: cloned/.git'; do
	grep -qx "$line" said || fail "a cloned folder: no \"$line\" in $(cat said)"
done
build --replace --json --out cloned_c cloned
grep -q '"cloned/d.parquet: a Parquet file"' said || fail "--json: $(cat said)"
must_fail 65 'cloned/d.parquet: expected text or JSON.*found a Parquet file' --out none cloned/d.parquet
build --out piped - < cloned/a.json.gz
[ "$(text_of piped)" = "one${end}two$end" ] || fail "JSON lines by gzip on standard input: $(text_of piped)"
build --text --out raw lines
[ "$(text_of raw)" = "$(cat lines)
$end" ] || fail "--text: $(text_of raw)"

# A byte for which the tokenizer has no token: an error that names it, left out, or replaced by another token. Hugging Face leaves it out.
python3 - "$tok/tokenizer.json" > lacks.json <<'END'
import json, sys
t = json.load(open(sys.argv[1]))
vocab = t["model"]["vocab"]
vocab["\u0104\u0104"] = vocab.pop("\u0104")	# byte 4
json.dump(t, sys.stdout)
END
printf '{"text": "fine"}\n{"text": "a\\u0004b"}\n' > four.jsonl
without() { ctl corpus build --tokenizer lacks.json --replace --out four "$@" four.jsonl > said 2> err; }
got=0; without || got=$?
[ $got = 65 ] && grep -q 'four.jsonl: document at line 2: its byte offset 1: expected .*--unknown-bytes.* found byte 0x04' err ||
	fail "a byte without a token: $got $(cat err)"
without --unknown-bytes drop
[ "$(text_of four)" = "fine${end}ab$end" ] || fail "--unknown-bytes drop: $(text_of four)"
grep -qx '1 bytes without a token (--unknown-bytes): four.jsonl: line 2' said || fail "dropped bytes are not counted: $(cat said)"
grep -q '"unknown_bytes": "drop"' four.json || fail "PREFIX.json does not tell the rule: $(cat four.json)"
without --unknown-bytes "$end"
[ "$(text_of four)" = "fine${end}a${end}b$end" ] || fail "--unknown-bytes TOKEN: $(text_of four)"
got=0; without --unknown-bytes nothing || got=$?
[ $got = 64 ] || fail "--unknown-bytes with an unknown token: $got $(cat err)"

# --add-special: the special tokens of the post_processor around each text, and the end-of-document token once.
python3 - "$tok/tokenizer.json" <<'END'
import json, sys
t = json.load(open(sys.argv[1]))
token = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
single = [token("B"), {"Sequence": {"id": "A", "type_id": 0}}, token("E")]
t["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": [],
                       "special_tokens": {n: {"id": n, "ids": ids, "tokens": [n] * len(ids)} for n, ids in (("B", [5, 6]), ("E", [7, 0]))}}
json.dump(t, open("around.json", "w"))
t["post_processor"] = {"type": "Unknown"}
json.dump(t, open("strange.json", "w"))
END
printf 'one\ntwo\n' > two_lines
around() { ctl corpus build --tokenizer "$1" --replace --split-on lines --out special "${@:2}" two_lines > said 2> err; }
ids() { od -An -v -tu2 special.bin | xargs; }
one=$(printf one | ctl tokenizer encode --tokenizer "$tok") two=$(printf two | ctl tokenizer encode --tokenizer "$tok")
around around.json || fail "a post_processor: $(cat err)"
[ "$(ids)" = "$one 0 $two 0" ] && ! grep -q add_special special.json || fail "without --add-special: $(ids)"
around around.json --add-special || fail "--add-special: $(cat err)"
[ "$(ids)" = "5 6 $one 7 0 5 6 $two 7 0" ] || fail "--add-special: $(ids)"
grep -qx 'added     5 6 text 7' said && grep -q '"add_special": "5 6 text 7"' special.json || fail "--add-special is not told: $(cat said special.json)"
around "$tok" --add-special && [ "$(ids)" = "$one 0 $two 0" ] && grep -q 'post_processor adds nothing' err || fail "nothing to add: $(ids) $(cat err)"
got=0; around strange.json --add-special || got=$?
[ $got = 65 ] && grep -q 'post_processor: expected TemplateProcessing.* found Unknown' err || fail "another post_processor: $got $(cat err)"

# Inputs without text; existing files are not overwritten.
must_fail 65 'no document with a token' --out none /dev/null
must_fail 65 'no document with a token' --out none - < /dev/null
must_fail 66 'a folder with files that match' --only '*.nothing' --out none in
must_fail 73 'files' --out files in/a.txt
build --replace --out files in/a.txt
[ "$(text_of files)" = "$(cat in/a.txt)$end" ] || fail "--replace"

# A document much longer than a window, and longer than any buffer.
for i in $(seq 1 60000); do echo "line $i of a long document"; done > long
build --out long_c long
{ cat long; printf %s "$end"; } > expected
text_of long_c > back
same expected back "a long document"
ctl corpus info long_c --context 128 | grep -q '^documents *1$' || fail "a long document is cut"

# The held-out part: the text of a document alone decides which part it is in; the number of threads does not matter; copies stay together.
{ for i in $(seq 1 400); do echo "document $i"; done; echo "document 7"; } > lines
build --split-on lines --out t1 --heldout-out h1 --heldout-one-in 10 --threads 1 lines
build --split-on lines --out t2 --heldout-out h2 --heldout-one-in 10 --threads 3 lines
for x in bin idx json; do same t1.$x t2.$x threads; same h1.$x h2.$x threads; done
shuf --random-source=random lines | build --split-on lines --out t3 --heldout-out h3 --heldout-one-in 10 -
docs() { text_of "$1" | sed "s/$end/\n/g" | sort; }
cmp -s <(docs h1) <(docs h3) || fail "the order of documents changes the held-out part"
cmp -s <(cat <(docs t1) <(docs h1) | sort) <(sort lines) || fail "documents are lost or doubled"
python3 - > chosen <<'END'
import ctypes
xxh = ctypes.CDLL("libxxhash.so.0").XXH3_64bits
xxh.restype, xxh.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
for line in open("lines", "rb").read().splitlines():
    if xxh(line, len(line)) % 10 == 0:
        print(line.decode())
END
cmp -s <(docs h1) <(sort chosen) || fail "$(docs h1 | wc -l) of 401 documents held out, $(wc -l < chosen) have a hash divisible by 10"
must_fail 65 'all 1 documents are in the other part' --out t4 --heldout-out h4 --heldout-one-in 1000000000 in/a.txt
[ -z "$(ls t4.* h4.* 2>/dev/null)" ] || fail "half a corpus is left: $(ls t4.* h4.*)"

# Token files of other programs: raw ids need a type, which is recorded; files of other kinds are refused by name; a pattern gives the same stream
# each time.
python3 - <<'END'
import array
array.array("I", range(1, 4001)).tofile(open("u32.bin", "wb"))
array.array("H", range(1, 4001)).tofile(open("shard_1.bin", "wb"))
text = b"{'descr': '<i8', 'fortran_order': False, 'shape': (300,), }\n"
open("ids.npy", "wb").write(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + array.array("q", range(300)).tobytes())
END
printf '{"text": "one"}\n{"text": "two"}\n' > even.jsonl
info() {		# info CODE PATTERN ARGUMENT...
	local code=$1 pattern=$2 got=0
	shift 2
	ctl corpus info "$@" > said 2>&1 || got=$?
	[ $got = "$code" ] && grep -qE -- "$pattern" said || fail "corpus info $*: exit code $got, expected $code and \"$pattern\": $(cat said)"
}
info 65 '--dtype uint16.uint32.int32 .*corpus.dtype' u32.bin
info 64 '--dtype: expected uint16, uint32 or int32, found "int8"' u32.bin --dtype int8
info 65 'ids of 32 bits; state uint32' u32.bin --dtype uint16
info 65 'JSON text: make a corpus' even.jsonl --dtype uint16
info 0 'uint32 ids, stored' u32.bin --dtype uint32
info 0 'raw, uint32' u32.bin
info 0 'npy, int64' ids.npy
for i in 1 2 3; do info 0 'tokens *4000$' 'shard_*' --dtype uint16; done
# Changed bytes with the same size and times: info --check, and the fingerprint at the next use.
info 0 'all blocks have their checksums' l --check
rot l.bin 5
info 65 'l.bin: block 0 ' l --check
rot l.bin 5
info 0 'all blocks have their checksums; every id' l --check
rot l.json 100
info 65 'l.json' l
rot l.json 100

# A tokenizer.json that saltctl cannot encode with is compared by its bytes.
mkdir other
printf '{"model": {"type": "WordPiece", "vocab": []}}' > other/tokenizer.json
info 0 'the one given: the same$' l --tokenizer "$tok"
info 0 'the one given: another$' l --tokenizer other
grep -q 'compared by its bytes, .*expected BPE or Unigram, found WordPiece' said || fail "a tokenizer that cannot be read: $(cat said)"
info 0 '"tokenizer_unreadable": ".*WordPiece' l --tokenizer other --json --check
info 66 'nowhere' l --tokenizer nowhere
printf 'no JSON' > other/tokenizer.json
info 65 'other/tokenizer.json: expected a JSON object' l --tokenizer other

# A folder with only SentencePiece's model; model new writes the equivalent tokenizer.json.
mkdir spm
cp "$SOURCE/tests/golden/tokenizer/pieces_bpe.model" spm/tokenizer.model
printf 'the cat  sat\n on a  m\303\251t \377' > text
ids=$(ctl tokenizer encode --tokenizer spm text) || fail "a text by tokenizer.model"
ctl tokenizer decode --tokenizer spm <<< "$ids" > back
same text back "a text by tokenizer.model"
ctl model new --layers 1 --width 16 --heads 2 --context 16 --tokenizer spm student > said || fail "model new of tokenizer.model: $(cat said)"
[ "$(ctl tokenizer encode --tokenizer student text)" = "$ids" ] || fail "the tokenizer.json of a tokenizer.model has other ids"
