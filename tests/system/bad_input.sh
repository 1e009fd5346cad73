# SPDX-License-Identifier: Apache-2.0
# Wrong input gives a clear error that names the object, the place, what was expected and what was found, and an exit code of sysexits.h. Nothing is
# lost: after each group the correct command works.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"

n_bad=0
# bad NAME CODE REGEX COMMAND...: the command ends by itself with CODE, and a line of its output matches REGEX.
bad() {
	local name=$1 code=$2 regex=$3 rc=0
	shift 3
	timeout -s KILL 30 "$@" > "$scratch/out" 2>&1 || rc=$?
	if [ $rc != "$code" ] || ! grep -qE -- "$regex" "$scratch/out"; then
		echo "NOT OK: $name: exit code $rc, expected $code and \"$regex\"" >&2
		tail -4 "$scratch/out" | cut -c1-600 >&2
		n_bad=$((n_bad + 1))
	fi
}
# good NAME COMMAND...: exit code 0.
good() {
	local name=$1 rc=0
	shift
	timeout -s KILL 60 "$@" > "$scratch/out" 2>&1 || rc=$?
	if [ $rc != 0 ]; then
		echo "NOT OK: $name: exit code $rc, expected 0" >&2
		tail -4 "$scratch/out" | cut -c1-600 >&2
		n_bad=$((n_bad + 1))
	fi
}
# A copy of a folder or corpus, to be damaged.
copy_of() {
	rm -rf "$scratch/bad"*
	case $1 in
	train) for end in bin idx json counts.bin; do cp "$scratch/train.$end" "$scratch/bad.$end"; done ;;
	*) cp -r "$scratch/$1" "$scratch/bad" ;;
	esac
}
poke() {			# FILE OFFSET BYTES (as printf has them)
	printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
size_of() {
	stat -c %s "$1"
}

small_corpus
small_model "$scratch/teacher" 1
small_model "$scratch/scorer" 2
small_model "$scratch/student" -
port=$(free_port)
F=$scratch/fleet.yaml
small_fleet "$F" "$port"
sel="$BIN/selectord -c $F" tea="$BIN/teacherd -c $F" trn="$BIN/trainerd -c $F" ctl=$BIN/saltctl
tr0="$BIN/trainerd -c $F --set phase_one.steps=0 --set selector.mode=none --set cache.dir= --set run.dir=run0"

# ---- fleet.yaml ----
edit() {			# SED EXPRESSION: fleet.yaml changed, as $scratch/edit.yaml
	sed "$1" "$F" > "$scratch/edit.yaml"
}
edit 's/lr: 3e-3/learning: 3e-3/';	bad "unknown key" 78 "edit.yaml:7: trainer.learning" "$BIN/trainerd" -c "$scratch/edit.yaml"
edit 's/lr: 3e-3/lr: fast/';		bad "wrong type" 78 "edit.yaml:7: trainer.lr: expected a number.*found.*fast" "$BIN/trainerd" -c "$scratch/edit.yaml"
edit 's/keep_share: 0.5/keep_share: 1.5/';		bad "out of range" 78 "edit.yaml:6: selector.keep_share: expected .*1.*found 1.5" "$BIN/selectord" -c "$scratch/edit.yaml"
edit 's/^trainer/trainr/';		bad "unknown section" 78 "edit.yaml:7: trainr" "$BIN/teacherd" -c "$scratch/edit.yaml"
edit 's/mode: salt_ds/mode: best/';	bad "unknown word" 78 "edit.yaml:6: selector.mode: expected .*salt_ds.*found.*best" "$BIN/selectord" -c "$scratch/edit.yaml"
edit 's/^labels.*/labels: {kind: ]/';	bad "not YAML" 78 "edit.yaml:5: .*expected" "$ctl" config check -c "$scratch/edit.yaml"
edit 's/steps: 12/steps: 12, steps: 13/'; bad "a key twice" 78 "edit.yaml:7: trainer.steps" "$ctl" config check -c "$scratch/edit.yaml"
bad "no fleet.yaml" 66 "nowhere.yaml.*No such file" "$BIN/trainerd" -c "$scratch/nowhere.yaml"
bad "--set of an unknown key" 78 "trainer.steep.*trainer.steps" $trn --set trainer.steep=4
bad "options against each other" 78 "phase_one.steps.*trainer.steps" $trn --set phase_one.steps=99
bad "R and lanes against the batch" 78 "trainer.batch.*trainer.lanes|trainer.lanes.*trainer.batch" $trn --set trainer.lanes=16
bad "a required key" 78 "corpus.train.*(required|expected)" "$BIN/trainerd" -c /dev/null --set run.dir="$scratch/x"
bad "wrong usage" 64 "unknown option.*--bogus" $sel --bogus
bad "no such shard" 64 "--shard: expected 0 .. 0.*found 3" $sel --shard 3
for name in selectord teacherd trainerd; do
	bad "$name with few descriptors" 71 "^$name: open files \(ulimit -n\): expected a hard limit of at least 64.*found 24" \
	    bash -c 'ulimit -n 24 && exec "$@"' - "$BIN/$name" -c "$F"
done

# ---- corpora ----
for end in "missing .idx:rm X:65:bad.idx" "cut .idx:truncate -s 100 X:65:bad.idx" "long .idx:truncate -s +8 X:65:bad.idx" \
	"another magic:poke X 0 Q:65:bad.idx" "another version:poke X 9 \\\\007:65:bad.idx" "token type float:poke X 17 \\\\007:65:bad.idx"; do
	IFS=: read -r name spoil code file <<< "$end"
	copy_of train
	eval "${spoil/X/$scratch/bad.idx}"
	bad "$name: selectord" "$code" "$file.*(expected|No such)" $sel --set corpus.train="$scratch/bad"
	bad "$name: trainerd" "$code" "$file.*(expected|No such)" $tr0 --set corpus.train="$scratch/bad"
	bad "$name: saltctl" "$code" "$file.*(expected|No such)" "$ctl" corpus info "$scratch/bad"
done
copy_of train; truncate -s -100 "$scratch/bad.bin"
bad "cut .bin" 65 "bad.idx: byte .*expected.*found" $tr0 --set corpus.train="$scratch/bad"
copy_of train; poke "$scratch/bad.bin" 2000 '\377\377'
bad "changed .bin: selectord" 65 "bad.*expected [0-9a-f]{32}.*found [0-9a-f]{32}" $sel --set corpus.train="$scratch/bad"
bad "changed .bin: trainerd" 65 "bad.*expected [0-9a-f]{32}.*found [0-9a-f]{32}" $tr0 --set corpus.train="$scratch/bad"
rm "$scratch/bad.json"		# so that its fingerprint is not checked; half of the ids are bad, so that the first step finds one
head -c $(($(size_of "$scratch/bad.bin") / 2)) /dev/zero | tr '\0' '\377' | dd of="$scratch/bad.bin" conv=notrunc status=none
bad "id over the vocabulary: trainerd" 65 "token [0-9]+ .*position.*expected .*4096.*found 65535" $tr0 --set corpus.train="$scratch/bad" --set trainer.steps=400
rm "$scratch/bad.bin" "$scratch/bad.idx"
bad "no corpus" 66 "bad.*expected.*bad.bin" $tr0 --set corpus.train="$scratch/bad"
: > "$scratch/empty.bin"
bad "empty corpus" 65 "empty.*expected" $tr0 --set corpus.train="$scratch/empty.bin"
bad "fewer tokens than a window" 65 "train.*expected at least .*found" $sel --set corpus.context=300000


# ---- models ----
w=model.safetensors
for case in "no weights|rm $w|66|safetensors" "cut weights|truncate -s -40 $w|65|$w.*expected.*found" "long weights|truncate -s +64 $w|65|$w.*expected.*found" \
	"cut header|truncate -s 50 $w|65|$w.*expected.*found" "huge header|poke $w 0 '\377\377\377\377\377\377\377\177'|65|$w.*expected.*found" \
	"empty weights|truncate -s 0 $w|65|$w.*expected.*found" "NaN|poke $w \$((\$(size_of $w) - 4)) '\000\000\300\177'|65|$w.*: .*expected.*finite.*found.*[nN]a[nN]" \
	"infinity|poke $w \$((\$(size_of $w) - 4)) '\000\000\200\177'|65|$w.*: .*expected.*finite.*found.*[iI]nf" \
	"shard missing|mv $w a && echo '{\"weight_map\": {\"model.norm.weight\": \"a\", \"model.embed_tokens.weight\": \"b\"}}' > $w.index.json|66|bad/b: expected this file, named in .*index.json" \
	"no config|rm config.json|66|config.json.*No such" "cut config|truncate -s 60 config.json|65|config.json.*" "no layers|sed -i s/num_hidden_layers/x/ config.json|65|config.json.*num_hidden_layers.*expected" \
	"text for a number|sed -i s/.hidden_size.:.32/\\\"hidden_size\\\":\\\"a\\\"/ config.json|65|config.json.*hidden_size.*expected" \
	"other shape|sed -i s/.intermediate_size.:.64/\\\"intermediate_size\\\":65/ config.json|78|$w.*(mlp|proj).*expected.*65.*found.*64"; do
	IFS='|' read -r name spoil code regex <<< "$case"
	copy_of teacher
	(cd "$scratch/bad" && eval "$spoil")
	bad "$name: teacherd" "$code" "$regex" $tea --set teacher.model="$scratch/bad"
	bad "$name: trainer.init" "$code" "$regex" $tr0 --set trainer.model="$scratch/bad" --set trainer.init="$scratch/bad" --set run.dir=run_bad
	case $name in
	no\ weights | cut\ * | *config) bad "$name: selectord" "$code" "$regex" $sel --set teacher.model="$scratch/bad" ;;
	esac
done
for case in "cut tokenizer|truncate -s 3000|65" "empty tokenizer|truncate -s 0|65"; do
	IFS='|' read -r name spoil code <<< "$case"
	copy_of teacher
	$spoil "$scratch/bad/tokenizer.json"
	bad "$name: teacherd" "$code" "tokenizer.json.*expected|tokenizer.json: (line|byte)" $tea --set teacher.model="$scratch/bad"
	bad "$name: trainerd" "$code" "tokenizer.json.*expected|tokenizer.json: (line|byte)" $tr0 --set trainer.model="$scratch/bad"
	bad "$name: saltctl" "$code" "tokenizer.json.*expected|tokenizer.json: (line|byte)" "$ctl" tokenizer info "$scratch/bad"
done

# ---- what does not fit together ----
hash='[0-9a-f]{32}'
"$ctl" model new --layers 1 --width 32 --heads 2 --context 32 --vocab 3000 --weights 5 "$scratch/small_vocab" > /dev/null
cp "$scratch/teacher/tokenizer.json" "$scratch/small_vocab"
small_model "$scratch/wide_vocab" 5 --vocab 4200
cp -r "$scratch/teacher" "$scratch/short"
sed -i 's/"max_position_embeddings": 32/"max_position_embeddings": 16/' "$scratch/short/config.json"
small_model "$scratch/other" 7
cp -r "$scratch/teacher" "$scratch/other_tok"
sed -i 's/"content": "<|endoftext|>"/"content": "<|end|>"/; s/"<|endoftext|>": 0/"<|end|>": 0/' "$scratch/other_tok/tokenizer.json"
bad "teacher's vocabulary below the corpus's" 78 "teacher.model .*small_vocab.*at least 4096.*found 3000" $sel --set teacher.model="$scratch/small_vocab"
bad "scorer's vocabulary below the corpus's" 78 "teacher.scorer .*small_vocab.*at least 4096.*found 3000" $sel --set teacher.scorer="$scratch/small_vocab"
bad "student's vocabulary below the corpus's" 78 "train.*4096.*3000|train.*3000.*4096" $tr0 --set trainer.model="$scratch/small_vocab" --set run.dir=run_v
bad "teacher's tokenizer" 78 "teacher.model .*other_tok/tokenizer.json.*expected tokenizer $hash.*found $hash" $sel --set teacher.model="$scratch/other_tok"
bad "scorer's tokenizer" 78 "teacher.scorer .*other_tok/tokenizer.json.*expected tokenizer $hash.*found $hash" $sel --set teacher.scorer="$scratch/other_tok"
bad "student's tokenizer" 78 "other_tok/tokenizer.json.*expected the tokenizer of corpus.*$hash.*found $hash" $tr0 --set trainer.model="$scratch/other_tok" --set run.dir=run_v
bad "teacher's context" 78 "teacher.model.*at least 32.*corpus.context.*found 16" $sel --set teacher.model="$scratch/short"
bad "student's context" 78 "trainer.model .*short.*at least 32 .corpus.context.*found 16" $tr0 --set trainer.model="$scratch/short" --set run.dir=run_v
bad "dense records over bus.max_message" 78 "bus.max_message.*26[0-9]{4}.*found 131072" $sel --set labels.kind=dense --set bus.max_message=128KiB
bad "lanes and ranks" 78 "trainer.lanes.*3 ranks" "${mpirun[@]}" -n 3 $tr0 --set run.dir=run_v

# ---- addresses and directories ----
start sel1 $sel
until_line "$scratch/sel1.log" event=start
bad "port taken: selectord" 69 "tcp://127.0.0.1:$port: expected a free port.*: Address already in use" $sel --set cache.dir=cache2
bad "port taken: selectord --shard" 69 "tcp://127.0.0.1:$port: expected a free port.*: Address already in use" $sel --set cache.dir=cache2 --shard 0
bad "port taken: status of teacherd" 69 "tcp://127.0.0.1:$port: expected a free port.*: Address already in use" $tea --set status.bind="tcp://127.0.0.1:$port"
bad "port taken: status of trainerd" 69 "tcp://127.0.0.1:$port: expected a free port.*: Address already in use" $tr0 --set status.bind="tcp://127.0.0.1:$port" --set run.dir=run_v
bad "not an address of ours" 69 "tcp://203.0.113.7.*|allow_plain_remote" $sel --set cache.dir=cache2 --set selector.endpoints=[tcp://203.0.113.7:7777] --set security.allow_plain_remote=true
bad "second selectord on a cache" 69 "cache.*(pid|process) $sel1.*" $sel --set selector.endpoints=[tcp://127.0.0.1:$(free_port)]
for key in "run.dir:$tr0" "run.dir:$sel --set cache.dir=cache2 --set selector.endpoints=[tcp://127.0.0.1:$(free_port)]" \
	"cache.dir:$sel --set selector.endpoints=[tcp://127.0.0.1:$(free_port)]"; do
	IFS=: read -r key command <<< "$key"
	regex="/teacher/config.json: .*expected a folder, found a file: Not a directory"
	bad "$key: a file in the way" 66 "$regex" $command --set "$key=$scratch/teacher/config.json/x"
	bad "$key: cannot be made" 66 "/proc/nowhere" $command --set "$key=/proc/nowhere/x"
done

# ---- HELLO: what does not belong to the running selectord's cache ----
bad "another teacher" 78 "models.fingerprint: refused by selectord.*expected teacher $hash or scorer $hash.*found $hash" $tea --set teacher.model="$scratch/other" --set teacher.scorer="$scratch/other"
bad "a teacher that serves nothing wanted" 78 "models" $tea --set teacher.serve=score --set teacher.model="$scratch/other" --set teacher.scorer="$scratch/other"
trv="$trn --set run.dir=run_h"
bad "labels of another seed" 78 "label_set.seed: refused by selectord at tcp.*expected 7, found 8" $trv --set labels.seed=8
bad "labels of another kind" 78 "label_set.kind: .*expected sampled, found topk" $trv --set labels.kind=topk
bad "more samples" 78 "label_set.samples: .*expected 8, found 9" $trv --set labels.samples=9
bad "another tau" 78 "label_set.tau: .*expected 1, found 2" $trv --set labels.tau=2
bad "another context" 78 "corpus.context: .*expected 32, found 16" $trv --set corpus.context=16
bad "another corpus" 78 "corpus.(n_windows|fingerprint): .*expected .*found" $trv --set corpus.train="$scratch/held"
bad "another heldout corpus" 78 "heldout.(n_windows|fingerprint): .*expected .*found" $trv --set corpus.heldout="$scratch/train"

# ---- cache.dir is removed or replaced while selectord runs: it ends before it acknowledges what no later start would find ----
# gone COMMAND: runs COMMAND, with cache.dir as $1, as soon as a selectord serves
gone() {
	start gone "$BIN/selectord" -c "$F" --set cache.dir=cache_gone --set run.dir=run_gone --set "selector.endpoints=[tcp://127.0.0.1:$(free_port)]"
	until_line "$scratch/gone.log" "event=heldout.needed|event=identity"
	until [ -e "$scratch/cache_gone/data.mdb" ]; do sleep 0.1; done
	bash -c "$1" - "$scratch/cache_gone"
	until_gone "$gone" 20
	rc=0
	wait "$gone" || rc=$?
	bad "cache.dir: $1" 66 "cache.dir .*cache_gone: expected the data.mdb that this selectord opened.*removed, moved or replaced: put it back" \
	    bash -c 'cat "$2"; exit "$1"' - $rc "$scratch/gone.log"
	rm -rf "$scratch/cache_gone" "$scratch/cache_away"
}
gone 'rm -r "$1"'
gone 'mv "$1" "${1%gone}away"'
gone 'mv "$1" "${1%gone}away" && cp -r "${1%gone}away" "$1"'

# ---- the run lives ----
start tea1 $tea
good "a whole run" $trn
stop TERM $sel1 $tea1
cp -r "$scratch/run" "$scratch/run_before"
bad "another seed" 78 "run.seed.*holds a run with a different value.*expected 3, found 4" $trn --set run.seed=4
bad "another batch" 78 "trainer.batch.*expected 8, found 16" $trn --set trainer.batch=16
bad "other lanes" 78 "trainer.(lanes|micro_batch).*expected [24], found [24]" $trn --set trainer.lanes=2
bad "another corpus in a run" 78 "corpus.*expected $hash.*found $hash" $trn --set corpus.train="$scratch/held" --set trainer.steps=20
bad "another shape in a run" 78 "step_00000012.*(expected|shape).*" $trn --set trainer.model="$scratch/wide_vocab"
for change in "labels.seed=8:label_set.*expected .*found" "labels.tau=2:label_set.*expected .*found" "corpus.context=16:context: expected 32.*found 16" \
	"corpus.train=$scratch/held:corpus: expected $hash.*found $hash" "corpus.heldout=$scratch/train:heldout: expected $hash.*found $hash" \
	"teacher.model=$scratch/other:label_set.teacher: expected $hash.*found $hash" "teacher.scorer=$scratch/other:score_set.scorer: expected $hash.*found $hash" \
	"labels.kind=topk:label_set.kind: expected sampled.*found topk"; do
	bad "the cache with ${change%%:*}" 78 "cache: ${change#*:}" $sel --set "${change%%:*}"
done
diff -r "$scratch/run_before/checkpoints" "$scratch/run/checkpoints" > /dev/null || { echo "NOT OK: checkpoints of a refused run changed" >&2; n_bad=$((n_bad + 1)); }
good "the finished run again" $trn
good "and longer" $trn --set trainer.steps=15

# ---- a corpus that says neither its vocabulary nor its tokenizer: teacher's and student's are compared at HELLO ----
copy_of train
rm "$scratch/bad.json" "$scratch/bad.counts.bin"
foreign="--set corpus.train=$scratch/bad --set cache.dir=cache_f --set run.dir=run_f"
start sel2 $sel $foreign
start tea2 $tea $foreign
until_line "$scratch/sel2.log" event=start
bad "student's vocabulary is not the teacher's" 78 "corpus.vocab_size: refused by selectord.*expected 4096, found 4200" $trn $foreign --set trainer.model="$scratch/wide_vocab"
bad "student's tokenizer is not the teacher's" 78 "corpus.tokenizer: refused by selectord.*expected $hash, found $hash" $trn $foreign --set trainer.model="$scratch/other_tok"
good "a foreign corpus" $trn $foreign
stop TERM $sel2 $tea2

# ---- disk full under a checkpoint: the one before stays whole, the same command goes on when there is room ----
cat > "$scratch/full.sh" <<'END'
run=$1
shift
mkdir -p "$run"
mount -t tmpfs -o size=5m tmpfs "$run" || exit 1
"$@"
rc=$?
mount -o remount,size=64m "$run"
"$@" || exit 2
cp "$run/metrics.jsonl" "$run.jsonl"
exit $rc
END
alone=
for try in "unshare -m" "unshare -rm"; do
	[ -n "$alone" ] || ! $try true 2> /dev/null || alone=$try
done
if [ -n "$alone" ]; then
	good "a run with room" $tr0 --set run.dir=run_room
	losses "$scratch/run_room/metrics.jsonl" > "$scratch/room"
	bad "disk full" 74 "step_0000000[69].*No space left" $alone bash "$scratch/full.sh" "$scratch/run_full" $tr0 --set run.dir=run_full
	grep -q "event=resume step=[36]$" "$scratch/out" || { echo "NOT OK: disk full: no resume: $(grep resume "$scratch/out")" >&2; n_bad=$((n_bad + 1)); }
	losses "$scratch/run_full.jsonl" > "$scratch/no_room"
	same "$scratch/room" "$scratch/no_room" "losses after a full disk"
else
	echo "disk full: not tried, no mount namespaces here"
fi

[ $n_bad = 0 ] || fail "$n_bad cases"
