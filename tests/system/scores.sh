# SPDX-License-Identifier: Apache-2.0
# Scores exported from a fleet and used again: the exported figures equal those of a plain reference; selector.mode file with exported scores, or with
# the list of the chosen rows, gives the rows and the losses of salt_ds; another file is refused; errors in files name the line; the programs of
# docs/selector.md run.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"

small_corpus
small_model "$scratch/student" -
cd "$scratch"
small_fleet fleet.yaml "$(free_port)" "$(free_port)"
sed -i '$a compute: {dtype: fp32}' fleet.yaml
small_teachers fleet.yaml
cp "$SOURCE/share/tokenizer-4k/tokenizer.json" . 2> /dev/null || cp "$(find -L teacher -name tokenizer.json)" .
file=(--set selector.mode=file --set selector.file=scores.jsonl)

# fleet OPTION...: starts two selector shards and a teacher with fleet.yaml and these options.
shards() {
	start shard0 "$BIN/selectord" -c fleet.yaml --shard 0 "$@"
	start shard1 "$BIN/selectord" -c fleet.yaml --shard 1 "$@"
}
fleet() {
	shards "$@"
	start teacherd "$BIN/teacherd" -c fleet.yaml "$@"
}
end_fleet() {
	stop TERM $teacherd $shard0 $shard1
}
# train NAME OPTION...: trains in run NAME; its losses go to NAME.losses.
train() {
	local name=$1 rc=0
	shift
	timeout 100 "$BIN/trainerd" -c fleet.yaml --set run.dir="$name" "$@" >> "$name.log" 2>&1 || rc=$?
	[ ! -e "$name/metrics.jsonl" ] || losses "$name/metrics.jsonl" > "$name.losses"
	return $rc
}
# refused NAME CODE REGEX COMMAND...: the command ends with CODE, and its output matches REGEX.
refused() {
	local name=$1 code=$2 regex=$3 rc=0
	shift 3
	timeout 60 "$@" > refused.out 2>&1 || rc=$?
	[ $rc -eq "$code" ] && grep -qE -- "$regex" refused.out || fail "$name: $rc, $(tail -2 refused.out)"
}

# ---- salt_ds, its chosen rows and its scores
fleet
train ds || fail "salt_ds: $(tail -1 ds.log)"
"$BIN/saltctl" scores export -c fleet.yaml --documents documents.jsonl scores.jsonl > export.out || fail "scores export"
"$BIN/saltctl" cache reselect -c fleet.yaml --rows chosen.tsv > /dev/null || fail "reselect"
end_fleet
"$BIN/saltctl" cache export -c fleet.yaml ex > /dev/null
n=$(python3 "$SOURCE/tests/system/scores_check.py" ex train tokenizer.json 200 scores.jsonl documents.jsonl) && [ "$n" -ge 20 ] || fail "figures differ, or few documents: $n"
"$BIN/saltctl" scores export -c fleet.yaml scores.safetensors > /dev/null
python3 "$SOURCE/tests/system/scores_check.py" same scores.jsonl scores.safetensors || fail "the two forms differ"
# Scores of all sequences computed with a model; those in the cache are the same.
"$BIN/saltctl" scores export -c fleet.yaml --model scorer --threads 2 all.jsonl > /dev/null || fail "export --model"
[ "$(wc -l < all.jsonl)" -gt "$(wc -l < scores.jsonl)" ] && [ -z "$(sort all.jsonl | comm -13 - <(sort scores.jsonl))" ] || fail "the model's scores are not those in the cache"
echo '{"sequence": 3}' > list.jsonl
refused "a selector.file, which is no earlier export" 73 "list.jsonl.*--replace" "$BIN/saltctl" scores export -c fleet.yaml list.jsonl
mkfifo pipe.safetensors
refused "a pipe" 73 "pipe.safetensors: expected a regular file, or none, found a pipe" "$BIN/saltctl" scores export -c fleet.yaml pipe.safetensors
refused "a file that is there" 73 "tokenizer.json.*--replace" "$BIN/saltctl" scores export -c fleet.yaml tokenizer.json

# Stopped while it computes: neither file is left.
python3 - "$BIN/saltctl" <<'END' || fail "a stopped scores export"
import glob, os, signal, subprocess, sys, time
words = [sys.argv[1], "scores", "export", "-c", "fleet.yaml", "--model", "scorer", "--documents", "stopped.d.jsonl", "stopped.jsonl"]
for _ in range(50):
    p = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while p.poll() is None and not os.path.exists(f"stopped.d.jsonl.{p.pid}.tmp"):
        time.sleep(0.0005)
    os.kill(p.pid, signal.SIGSTOP)
    time.sleep(0.05)
    left = glob.glob("stopped*.tmp")
    os.kill(p.pid, signal.SIGTERM)
    os.kill(p.pid, signal.SIGCONT)
    p.wait(60)
    if len(left) == 2:
        assert p.returncode == -signal.SIGTERM and glob.glob("stopped*") == [], (p.returncode, glob.glob("stopped*"))
        sys.exit(0)
sys.exit("it ends before it can be stopped")
END

# ---- the same rows from a file of scores, in the same cache: the same losses, and no score is requested
fleet "${file[@]}"
train by_scores "${file[@]}" || fail "file of scores: $(tail -1 by_scores.log)"
same ds.losses by_scores.losses "salt_ds and its exported scores"
grep -q 'event=plan.opened .*mode=file' shard0.log || fail "no plan of mode file"
"$BIN/saltctl" cache fsck -c fleet.yaml > fsck.out || fail "fsck: $(cat fsck.out)"

# ---- another file: refused by name, by a running trainer and on a resume; the same numbers in another order of lines are the same file
longer=("${file[@]}" --set selector.file=all.jsonl --set trainer.steps=500 --set phase_one.steps=40)
stop TERM $teacherd $shard0 $shard1
shards "${longer[@]}"			# without a teacher it waits for labels after the six steps whose labels exist
start going timeout 100 "$BIN/trainerd" -c fleet.yaml --set run.dir=going "${longer[@]}"
until_line going.log 'event=rows.waiting step=6'
stop TERM $shard0 $shard1
sed '1s/"score": [0-9.]*/"score": 7.5/' all.jsonl > other.jsonl
shards "${longer[@]}" --set selector.file=other.jsonl
rc=0; wait $going || rc=$?
[ $rc -eq 78 ] && grep -q 'event=failed .*selector.file: .*expected [0-9a-f]*, .* found [0-9a-f]*' going.log || fail "another file, live: $rc, $(tail -1 going.log)"
rc=0; train going "${longer[@]}" || rc=$?
[ $rc -eq 78 ] && grep -c 'event=failed .*selector.file: .*expected [0-9a-f]*, .* found' going.log | grep -qx 2 || fail "another file, resumed: $rc, $(tail -1 going.log)"
rc=0; train ds --set trainer.steps=14 --set phase_one.steps=14 "${file[@]}" || rc=$?
[ $rc -eq 78 ] && grep -q 'event=failed .*selector.mode' ds.log || fail "another mode, resumed: $rc, $(tail -1 ds.log)"
stop TERM $shard0 $shard1

# ---- the same rows from a list; and from scores in safetensors through import
sort -n chosen.tsv | head -48 | cut -f3 | sed 's/.*/{"sequence": &}/' > list.jsonl
fleet "${file[@]}" --set selector.file=list.jsonl --set selector.keep_share=0.25
train by_list "${file[@]}" --set selector.keep_share=0.25 || fail "list: $(tail -1 by_list.log)"
sed -i '/"event":"switch"/d' ds.losses by_list.losses		# the number of rows that are trained again is an estimate from block and keep_share
same ds.losses by_list.losses "salt_ds and the list of its rows"
"$BIN/client_feed" fleet.yaml rows 0 selector.mode=file selector.file=not-here selector.keep_share=0.25 > client.rows || fail "libsaltfleet"
same <(head -48 client.rows | cut -d' ' -f3) <(sed 's/[^0-9]//g' list.jsonl) "the list and the rows of libsaltfleet"
"$BIN/saltctl" cache fsck -c fleet.yaml > fsck.out || true		# the interrupted run has rows without labels
grep -q 'records read' fsck.out && ! grep -v ': missing label: \|findings\|^to have' fsck.out || fail "fsck with a list"
end_fleet
hash() {
	"$BIN/saltctl" scores import -c fleet.yaml --set selector.mode=file --set selector.file="$2" --json "$1" | sed -n 's/.*"hash": "\([0-9a-f]*\)".*/\1/p'
}
shuf --random-source=train.bin scores.jsonl > shuffled.jsonl
a=$(hash scores.safetensors from_tensors.jsonl) b=$(hash shuffled.jsonl from_lines.jsonl) c=$(hash other.jsonl from_other.jsonl)
[ ${#a} -eq 32 ] && [ "$a" = "$b" ] && [ "$a" != "$c" ] || fail "hashes: $a $b $c"
same from_tensors.jsonl from_lines.jsonl "imports of one table"
"$BIN/saltctl" cache drop -c fleet.yaml > drop.out || fail "drop"

# ---- bad files, and incomplete files
bad() {
	printf '%b' "$3" > bad.jsonl
	refused "$1" 65 "$2" "$BIN/selectord" -c fleet.yaml -n --set selector.mode=file --set selector.file=bad.jsonl
	refused "$1, import" 65 "$2" "$BIN/saltctl" scores import -c fleet.yaml --set selector.mode=file --set selector.file=new.jsonl bad.jsonl
	[ ! -e new.jsonl ] || fail "$1: a bad file was imported"
}
bad "no such sequence" 'line 2: sequence: expected 0 to [0-9]*, .*found 99999999' '{"sequence": 1}\n{"sequence": 99999999}\n'
bad "twice" 'line 2: sequence: expected each .*line 1' '{"sequence": 1}\n{"sequence": 1}\n'
bad "NaN" 'line 1: expected .*NaN' '{"sequence": 1, "score": NaN}\n'
bad "too few" 'selector.file: expected at least 48 sequences.*found 1' '{"sequence": 1}\n'
sed 5d scores.jsonl > gap.jsonl
refused "a gap" 65 'selector.file: expected (a score of sequence|scores of at least)' "$BIN/selectord" -c fleet.yaml -n "${file[@]}" --set selector.file=gap.jsonl
refused "no file" 66 'selector.file .*missing.jsonl' "$BIN/selectord" -c fleet.yaml -n "${file[@]}" --set selector.file=missing.jsonl
# Neither a baseline nor a trainer needs the file.
train baseline "${file[@]}" --set selector.file=missing.jsonl --set phase_one.steps=0 --set trainer.steps=2 || fail "baseline: $(tail -1 baseline.log)"

PATH=$BIN:$PATH python3 "$SOURCE/tests/snippets.py" "$SOURCE/docs/selector.md" "$scratch" > snippets.log 2>&1 || fail "docs/selector.md: $(cat snippets.log)"
