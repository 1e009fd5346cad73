# SPDX-License-Identifier: Apache-2.0
# The verbs of saltctl cache on a cache that one small fleet has filled: stat, fsck, drop, export, import and reselect.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"

small_corpus
small_model "$scratch/student" -
small_model "$scratch/other" 5
cd "$scratch"
small_fleet f.yaml "$(free_port)"
small_teachers f.yaml
check="python3 $SOURCE/tests/system/export_check.py"

# said CODE PATTERN COMMAND...: saltctl cache COMMAND ends with CODE, and its output matches PATTERN.
said() {
	local code=$1 pattern=$2 got=0
	shift 2
	timeout 60 "$BIN/saltctl" cache "$@" > out 2> err < /dev/null || got=$?
	[ "$got" = "$code" ] || fail "cache $*: exit code $got, expected $code: $(head -3 out err)"
	grep -qE -- "$pattern" out err || fail "cache $*: expected \"$pattern\", said: $(head -5 out err)"
}
# number FIELD: the first value of this field in the JSON in out.
number() {
	sed -n "s/.*\"$1\": *\([^,]*\),*$/\1/p" out | head -1
}
# fill [OPTION...]: runs selectord and a teacher until every row of the plan exists.
fill() {
	start selectord "$BIN/selectord" -c f.yaml "$@"
	start teacherd "$BIN/teacherd" -c f.yaml "$@"
	timeout 60 "$BIN/saltctl" label -c f.yaml "$@" > label.out 2>&1 || { tail -3 selectord.log teacherd.log >&2; fail "label $*: $(cat label.out)"; }
}
dump() {
	"$BIN/cache_dump" "$1" 3000 > "$2"
}
# copy DIR: copies the cache while no process uses it.
copy() {
	rm -rf "$1"
	cp -r cache "$1"
}

# While selectord works on the cache, reading works, and writing is refused with the name of the process.
fill
said 0 '48 labels' stat -c f.yaml
said 0 ' 0 findings' fsck -c f.yaml
said 69 "expected no other writer.*found pid $selectord on" fsck --queue -c f.yaml
said 69 "found pid $selectord on" drop --write --cache cache
said 0 ': 0 labels' drop --write -c f.yaml		# selectord is asked over its socket; while the plan is open it drops none
stop TERM $selectord $teacherd
dump cache good
[ "$(grep -c ^label good)" = 48 ] || fail "not 48 labels"

# The contents, compared with a plain reader of the export; then the labels, compared with the teacher's output.
said 0 ' 0 findings' fsck -c f.yaml
said 0 exported export -c f.yaml new/folder/of/ex		# missing parents are made
mv new/folder/of/ex ex
said 73 'ex' export -c f.yaml ex
said 0 looked_at stat -c f.yaml --json --sample 0 --fidelity
$check ex > plain || fail "the export"
printf '%d %.9f %.9f\n' "$(number looked_at)" "$(number unique_ids_per_token)" "$(number entropy_bits)" > ours
awk 'NR == FNR { split($0, a); next } { exit !($1 == a[1] && $2 - a[2] < 1e-6 && a[2] - $2 < 1e-6 && $3 - a[3] < 1e-5 && a[3] - $3 < 1e-5) }' plain ours ||
	fail "cache stat says $(cat ours), a plain reader $(cat plain)"
[ "$(number same_bytes_as_stored)" = 4 ] && [ "$(number same_bytes_run_twice)" = 4 ] || fail "fidelity: $(grep same_bytes out)"
said 78 'expected [0-9a-f]{32}, which made the labels, found' stat -c f.yaml --fidelity --teacher other

# The program of docs/formats.md, taken from the page.
sed -n '/^    import json/,/^$/p' "$SOURCE/docs/formats.md" | sed 's/^    //; s/^$//' > ten.py
[ "$(grep -c . ten.py)" -le 10 ] && [ "$(grep -c . ten.py)" -ge 5 ] || fail "docs/formats.md: not ten lines: $(cat ten.py)"
mkdir ten
ln -s ../ex ten/export
echo 'print(len(t["seq"]), "%.4f" % weights.sum(), len(ids) == len(weights))' >> ten.py
got=0
(cd ten && "$SOURCE/tests/peers/run.sh" ../ten.py > ../ten.out 2>&1) || got=$?
if [ $got = 77 ]; then
	echo "skipped: the ten lines of docs/formats.md: $(cat ten.out)"
else
	[ $got = 0 ] && [ "$(cat ten.out)" = "48 32.0000 True" ] || fail "ten lines: $(tail -3 ten.out)"
fi

# Exported and imported again: the same bytes. A second import adds nothing.
said 0 'imported .* 155 records new, 0 there already' import --cache back ex
said 0 'imported .* 0 records new, 155 there already, none that differs' import --cache back -c f.yaml ex
dump back back.dump
same good back.dump "an import"
said 0 ' 0 findings' fsck --cache back -c f.yaml
said 0 exported export --cache back --shard-bytes 3000 ex2
[ "$(ls ex2 | grep -c labels)" -gt 3 ] || fail "--shard-bytes made $(ls ex2)"
said 0 '155 records new' import --cache new/caches/back2 ex2
mv new/caches/back2 back2
dump back2 back.dump
same good back.dump "an import of many files"
for kind in topk dense; do
	fill --set cache.dir=cache_$kind --set labels.kind=$kind --set labels.k=12 --set phase_one.steps=2
	stop TERM $selectord $teacherd
	said 0 exported export --cache cache_$kind ex_$kind
	said 0 'records new' import --cache back_$kind ex_$kind
	dump cache_$kind a.dump
	dump back_$kind b.dump
	same a.dump b.dump "an import of $kind labels"
done

# Imports that are refused: another label set, another corpus, changed files.
said 78 'label_set.kind: expected sampled, which the cache was made with, found topk|label_set.*expected .*found' import -c f.yaml ex_topk
said 78 'corpus: expected [0-9a-f]{32}, which the cache was made with, found [0-9a-f]{32}' import --cache back3 --corpus held ex
mangle() {		# mangle NAME SED: an export with another manifest
	rm -rf "$1"
	cp -r ex "$1"
	sed -i "$2" "$1/manifest.json"
}
mangle m '/"hash"/d; s/\("bytes": [0-9]*\),/\1/'
printf '\377\377\377\377\377\377\377\177' | dd of=m/labels-00000.safetensors conv=notrunc status=none
said 65 'labels-00000.safetensors' import --cache back3 m
mangle m '/"hash"/d; s/\("bytes": [0-9]*\),/\1/'
at=$(($(stat -c %s m/labels-00000.safetensors) - 1))		# the last count
printf '\377' | dd of=m/labels-00000.safetensors bs=1 seek=$at conv=notrunc status=none
said 65 'labels-00000.safetensors: sequence' import --cache back3 m
mangle m s/x/x/
printf '\377' | dd of=m/labels-00000.safetensors bs=1 seek=$at conv=notrunc status=none
said 65 'expected [0-9]* bytes with hash [0-9a-f]*, as in manifest.json, found' import --cache back3 m
mangle m s/x/x/
truncate -s -1 m/scores-00000.safetensors
said 65 'scores-00000.safetensors' import --cache back3 m
mangle m 's/"label_set.tau": "1"/"label_set.tau": "nan"/'
said 65 'label_set.tau' import --cache back3 m
mangle m 's/"version": 1,/"version": 0,/'
said 65 'expected version 1, found 0; export again' import --cache back3 m
mangle m 's/"label_set.seed": "7"/"label_set.seed": "8"/'
said 78 'identity label_set: expected' import --cache back3 m
mangle m 's/"labels-00000.safetensors"/"..\/x"/'
said 65 'the name of a file in the same folder' import --cache back3 m
said 66 'nowhere' import --cache back3 nowhere
# An export that is not complete.
mangle m s/x/x/
python3 -c '
import json
m = json.load(open("m/manifest.json"))
del m["scores"]
json.dump(m, open("m/manifest.json", "w"))'
said 65 'm/manifest.json: scores: expected an object with records and files' import --cache back5 m
mangle m s/x/x/
python3 -c '
import json
m = json.load(open("m/manifest.json"))
m["labels"]["files"].pop()
json.dump(m, open("m/manifest.json", "w"))'
said 65 'm/manifest.json: labels: expected 48 records, as it says, found 0 in its files' import --cache back5 m
# A shard that is not there is missed, by every verb.
mkdir -p halves half/shard_0
mangle halves/shard_0 's/"shard": "0 of 1"/"shard": "0 of 2"/'
said 0 'records new' import --cache half halves
missed='half: warning: the cache has 2 shards, of which shard_0 to shard_0 are used; shard_1 is not there'
said 0 "$missed" stat --cache half
said 65 "$missed" fsck --cache half		# it also finds rows of blocks that are the other shard's
said 0 "$missed" export --cache half half_ex
mangle m 's/"batch": 8/"batch": 4294967304/'
said 65 'objects with plan, seed, batch' import --cache back3 m
mangle m s/x/x/
printf '\001' | dd of=m/unigram.bin bs=1 seek=9 conv=notrunc status=none
said 65 'unigram.bin: expected [0-9]* bytes with hash' import --cache back3 m
mangle m '/"hash"/d; s/\("bytes": [0-9]*\),/\1/'
printf '\001' | dd of=m/unigram.bin bs=1 seek=9 conv=notrunc status=none
said 78 'identity label_set: expected' import --cache back3 m

# Labels of older versions (an export of version 1 has no unigram table): refused with the command to type; with the corpus they are converted to the
# present version.
for version in 1 2; do
	mangle m "s/\"label_set.version\": \"3\"/\"label_set.version\": \"$version\"/; s/\"label_set\": \"[0-9a-f]*\"/\"label_set\": \"00000000000000010000000000000002\"/"
	[ $version != 1 ] || python3 -c '
import json, os
m = json.load(open("m/manifest.json"))
del m["unigram"], m["identity"]["label_set.unigram"]
json.dump(m, open("m/manifest.json", "w"))
os.remove("m/unigram.bin")'
	said 65 "expected version 3, found $version; with the saltctl that made them type: saltctl cache export .* import --cache NEW --corpus" \
		import --cache back4_$version m
	said 0 'imported .* 155 records new' import --cache back4_$version --corpus train m
	dump back4_$version back.dump
	same good back.dump "an import of version $version"
	said 0 ' 0 findings' fsck --cache back4_$version -c f.yaml
done

# A cache of version 2: no program writes to it.
copy old
python3 - <<'END'
import ctypes
xxh = ctypes.CDLL("libxxhash.so.0").XXH3_64bits
xxh.restype, xxh.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
key = b"id/label_set.version"
def value(v):
    return v + (xxh(v, len(v)) ^ xxh(key, len(key))).to_bytes(8, "little")
data = open("old/data.mdb", "rb").read()
assert key + value(b"3") in data
open("old/data.mdb", "wb").write(data.replace(key + value(b"3"), key + value(b"2")))
END
said 65 'expected version 3, found 2; with the saltctl' stat --cache old
got=0
timeout 20 "$BIN/selectord" -c f.yaml --set cache.dir=old > old.log 2>&1 || got=$?
[ $got = 65 ] && grep -q 'expected version 3, found 2; .*saltctl cache export.*saltctl cache import' old.log || fail "selectord on a cache of version 2: $got, $(tail -1 old.log)"

# Files that are not a cache, or a damaged one.
mkdir -p foreign
echo 'something else, as long as it takes to be looked at' > foreign/data.mdb
said 65 'expected data.mdb to be an LMDB file' stat --cache foreign
: > foreign/data.mdb
for verb in stat fsck 'fsck --queue' 'export new/no' 'drop --write'; do
	said 66 'cache.dir foreign: expected a cache made by selectord, found an empty data.mdb' $verb --cache foreign
done
# truncated at ends of pages, within pages, and within the page that lists the tables, whose rest then reads as zeros
tables=$(python3 -c '
import struct
data = open("cache/data.mdb", "rb").read()
size, = struct.unpack_from("<I", data, 40)
metas = [struct.unpack_from("<Q", data, at + 144) + struct.unpack_from("<Q", data, at + 128) for at in (0, size)]
print(max(metas)[1] * size)')		# of the two meta pages of LMDB the newer one: page size at 40, transaction at 144, root of the list of tables at 128
end=$(stat -c %s cache/data.mdb)
for bytes in 8192 10000 60000 $((end / 2 / 4096 * 4096)) $((tables + 64)) $((tables + 2000)); do
	copy cut
	truncate -s "$bytes" cut/data.mdb
	said 65 'cut short|damaged|pages' fsck --cache cut
done

# Damage is found and queued, the fleet makes the records again, and then the cache is as before.
copy broken
seq=$(sed -n 's/^label \([0-9]*\) .*/\1/p' good | head -1)
"$BIN/cache_dump" broken "$seq" raw > record
python3 -c '
import sys
record, data = open("record", "rb").read(), open("broken/data.mdb", "rb").read()
assert record in data
open("broken/data.mdb", "wb").write(data.replace(record, record[:60] + bytes([record[60] ^ 1]) + record[61:]))'
said 65 "labels sequence $seq: damaged" fsck --cache broken -c f.yaml
said 0 'damaged +1 records' stat --cache broken --sample 0
said 0 'exported' export --cache broken ex_broken
grep -q '1 damaged records were left out' err || fail "export of damage: $(cat err)"
# damage CACHE KEY [key]: copies CACHE to marred and flips a bit of the record with this key (hexadecimal), in its value or in the key's first byte.
damage() {
	rm -rf marred
	cp -r "$1" marred
	python3 - "${@:2}" <<'END'
import sys
key, data, n = bytes.fromhex(sys.argv[1]), bytearray(open("marred/data.mdb", "rb").read()), 0
at = data.find(key)
while at >= 0:
    if int.from_bytes(data[at - 2:at], "little") == len(key):       # a node of LMDB has the size of its key before the key
        data[at + (len(key) + 20 if len(sys.argv) == 2 else 0)] ^= 4
        n += 1
    at = data.find(key, at + 1)
assert n > 0, "no such key"
open("marred/data.mdb", "wb").write(data)
END
}
plan=$(sed -n 's/.*"plan": "\([0-9a-f]*\)".*/\1/p' ex/manifest.json | head -1)
last=$(python3 -c '
import json, struct
m = json.load(open("ex/manifest.json"))["heldout_scores"]["files"][-1]["file"]
data = open("ex/" + m, "rb").read()
head, = struct.unpack_from("<Q", data)
begin, end = json.loads(data[8:8 + head])["seq"]["data_offsets"]
print("01%016x" % max(struct.unpack_from("<%dQ" % ((end - begin) // 8), data, 8 + head + begin)))')
damage cache "$last" key
said 0 exported export --cache marred ex_marred
grep -q ' 1 damaged records were left out' err || fail "export of a score with a bad key: $(cat err)"
rm -r ex_marred
damage cache "$plan"
said 0 exported export --cache marred ex_marred
grep -q ' 1 damaged records were left out' err || fail "export of a damaged plan: $(cat err)"
# Without the plan's record drop does not know which labels are needed, also when fsck has dropped the damaged record.
said 65 "a plan.s record is damaged" drop --cache marred --write
said 65 '1 of them records of plans: cache drop refuses' fsck --queue --cache marred -c f.yaml
said 65 "rows of plan $plan: expected the record of this plan, .*found none, so no label was dropped" drop --cache marred --write
said 0 'records new' import --cache unplanned ex_marred
said 65 "rows of plan $plan: expected the record" drop --cache unplanned --write
start selectord "$BIN/selectord" -c f.yaml --set cache.dir=marred
timeout 60 "$BIN/saltctl" label -c f.yaml --no-wait > label.out 2>&1 || fail "label --no-wait: $(cat label.out)"
said 0 ': 0 labels' drop -c f.yaml --set cache.dir=marred --write
stop TERM $selectord
said 0 ': 0 labels' drop --cache marred --write
said 65 'queued: 1 labels and 0 scores dropped' fsck --queue --cache broken -c f.yaml
said 65 'missing label: expected a label of sequence' fsck --cache broken -c f.yaml
fill --set cache.dir=broken
stop TERM $selectord $teacherd
said 0 ' 0 findings' fsck --cache broken -c f.yaml
dump broken broken.dump
same good broken.dump "what was mended"
# A damaged corpus is named, and the records are not reported as damaged.
rot train.bin 5000
said 65 'train.bin: block 0 .*its bytes changed' fsck --cache broken -c f.yaml --queue
rot train.bin 5000
said 0 ' 0 findings' fsck --cache broken -c f.yaml
# Damage that no checksum shows, made in an export: other tokens (found only by comparison with the corpus), other scores, rows at another block.
# edit PART TENSOR N STRIDE: imports ex after adding 1 to the first N bytes of a tensor that are STRIDE apart.
edit() {
	mangle m '/"hash"/d; s/\("bytes": [0-9]*\),/\1/'
	python3 - "$@" <<'END'
import json, struct, sys
part, tensor, n, stride = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
path = f"m/{part}-00000.safetensors"
data = bytearray(open(path, "rb").read())
head, = struct.unpack_from("<Q", data)
begin, end = (8 + head + at for at in json.loads(data[8:8 + head])[tensor]["data_offsets"])
for i in range(begin, min(end, begin + n * stride), stride):
    data[i] = (data[i] + 1) % 256
open(path, "wb").write(data)
END
	rm -rf edited
	said 0 imported import --cache edited m
}
edit labels token_hash 1 1
said 0 ' 0 findings' fsck --cache edited
said 65 'labels sequence [0-9]+: .*expected' fsck --cache edited -c f.yaml
edit scores loss 4000 1
said 65 'S\(x\) = .*from its score record' fsck --cache edited
edit rows block 1000 8
said 65 'damaged rows' fsck --cache edited
said 65 'another corpus was given: expected [0-9a-f]{32}, which the cache was made with' fsck --cache broken --corpus held

# Another choice: the same rows as those of a plain reference, and as those of selectord with these settings.
settings="--k 20 --keep 0.25 --window 16 --steps 3"
said 0 '24 rows need one|rows need one' reselect -c f.yaml $settings --rows new/rows/mine.tsv
mv new/rows/mine.tsv .
need=$(sed -n 's/.* are there, \([0-9]*\) rows need one.*/\1/p' out)
$check ex rows 20 0.25 16 3 3 8 > plain.tsv || fail "the reference"
awk -F'\t' '{ printf "%s\t%s\t%s\t%.6f\n", $1, $2, $3, $4 }' mine.tsv > mine6.tsv
same plain.tsv mine6.tsv "reselect and a plain reference"
said 0 'rows need one' reselect -c f.yaml ${settings/--window/--pool} --rows pool.tsv		# a pool of 16 is one block of 16
same mine.tsv pool.tsv "a window of 16 and a pool of 16"
# FILE is written completely or not at all; a file that this verb did not write is kept.
said 0 'rows need one' reselect -c f.yaml $settings --rows pool.tsv
same mine.tsv pool.tsv "the same rows once more"
echo 'a list of mine' > pool.tsv
said 73 'pool.tsv: expected no such file, or --replace' reselect -c f.yaml $settings --rows pool.tsv
[ "$(cat pool.tsv)" = 'a list of mine' ] || fail "reselect --rows replaced a file"
said 0 'rows need one' reselect -c f.yaml $settings --rows pool.tsv --replace
same mine.tsv pool.tsv "--replace"
said 0 '' reselect -c f.yaml $settings --rows -
same mine.tsv out "--rows -"
said 64 'cannot both use standard output' reselect -c f.yaml $settings --rows - --json
said 73 'new/rows: expected a regular file, or none, found a folder' reselect -c f.yaml $settings --rows new/rows
[ -z "$(find new -name '*.tmp')" ] || fail "reselect --rows left $(find new -name '*.tmp')"
[ "$(wc -l < mine.tsv)" = 24 ] && [ "$need" -gt 0 ] && [ "$need" -lt 24 ] || fail "reselect: $(cat out)"
copy other_choice
other="--set selector.k=20 --set selector.keep_share=0.25 --set selector.block=16 --set phase_one.steps=3 --set cache.dir=other_choice"
fill $other
stop TERM $selectord $teacherd
[ $(($(dump other_choice o.dump; grep -c ^label o.dump) - 48)) = "$need" ] || fail "reselect said $need labels are to be made, $(grep -c ^label o.dump) are there now"
said 0 "24 are there, 0 rows" reselect -c f.yaml $settings --cache other_choice --write
grep -q ' 0 rows, 24 were there already' out || fail "selectord chose other rows than reselect: $(cat out)"
copy written
said 0 ' 24 rows, 0 were there already' reselect -c f.yaml $settings --cache written --write
fill ${other/other_choice/written}
stop TERM $selectord $teacherd
dump written w.dump
same o.dump w.dump "rows chosen by reselect"
said 0 ' 0 findings' fsck --cache written -c f.yaml
said 0 'blocks have no score' reselect -c f.yaml --window 64 --steps 60

# Labels that no plan needs: none while the plan is open; after the run, exactly those that no kept checkpoint can request.
said 0 ': 0 labels' drop -c f.yaml --write
start selectord "$BIN/selectord" -c f.yaml
start teacherd "$BIN/teacherd" -c f.yaml
timeout 60 "$BIN/trainerd" -c f.yaml > train.log 2>&1 || fail "trainerd: $(tail -1 train.log)"
stop TERM $teacherd
said 0 labels drop -c f.yaml --json
kept=$(number kept) gone=$(number labels) bytes=$(number bytes)
[ "$gone" -gt 0 ] && [ $((kept + gone)) = 48 ] || fail "drop: $(cat out)"
said 0 labels drop -c f.yaml --released --json
[ "$(number kept)" = 0 ] && [ "$(number labels)" = 48 ] || fail "drop --released: $(cat out)"
# selectord drops them while it works on the cache, and saltctl on a cache that no process uses: the results are the same
copy by_hand
said 0 labels drop -c f.yaml --write --json
[ "$(number kept) $(number labels) $(number bytes) $(number dropped)" = "$kept $gone $bytes true" ] || fail "selectord dropped $(cat out), not $gone"
grep -q "event=drop.end labels=$gone " selectord.log || fail "selectord's log: $(grep drop selectord.log)"
said 0 ' 0 findings' fsck -c f.yaml
got=0; timeout 60 "$BIN/saltctl" label -c f.yaml --set phase_one.steps=9 > out 2> err || got=$?
[ $got = 78 ] && grep -q '^saltctl label: f.yaml: expected a plan in phase one, found one that was released after its switch' err && grep -q 'rows ready after' out ||
	fail "label of a released plan: $got $(cat out err)"
stop TERM $selectord
# Rows of a released plan that are damaged may be any of their block, and a kept checkpoint may need them: their labels stay.
damage by_hand "$plan$(printf '%016x%08x' 2 0)"
said 0 labels drop --cache marred --json
[ "$(number kept)" -ge "$kept" ] || fail "drop with damaged rows keeps fewer labels than the $kept of the intact cache: $(cat out)"
said 0 "$gone labels" drop --cache by_hand --write
dump cache after
dump by_hand by_hand.dump
same after by_hand.dump "dropped by selectord and by saltctl"
[ "$(grep -c ^label after || true)" = "$kept" ] || fail "drop said that $kept labels stay"
grep ^score good > s.good
grep ^score after > s.after
same s.good s.after "scores after drop"
said 0 ' 0 findings' fsck -c f.yaml
