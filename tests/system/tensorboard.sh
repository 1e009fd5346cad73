# SPDX-License-Identifier: Apache-2.0
# TensorBoard files of trainerd: a run that is killed after a checkpoint and resumed shows every step once, with the values of metrics.jsonl.
# TB_READER: a Python with tensorboard, whose reader is then used instead of ours.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
small_corpus
small_model "$scratch/student" -
small_fleet fleet.yaml "$(free_port)"
train() { timeout 150 "$BIN/trainerd" -c fleet.yaml --set phase_one.steps=0 --set selector.mode=none --set trainer.steps="$1" "${@:2}"; }

# Killed some time after the checkpoint of step 30: the steps from 31 on are done again.
start first "$BIN/trainerd" -c fleet.yaml --set phase_one.steps=0 --set selector.mode=none --set trainer.steps=100000 \
	--set trainer.checkpoint_every=0 --set trainer.keep_steps=[30]
until_line "$scratch/run/metrics.jsonl" '"kind":"step","step":4[0-9],' 30
stop KILL "$first"
done_steps=$(grep -c '"kind":"step"' run/metrics.jsonl)
[ "$done_steps" -ge 40 ] || fail "killed after $done_steps steps"
train 120 --set trainer.checkpoint_every=0 > second.log 2>&1 || fail "resumed: $(tail -2 second.log)"
grep -q 'event=resume .*step=30' second.log || fail "not resumed from step 30: $(cat second.log)"
train 130 --set trainer.checkpoint_every=0 > third.log 2>&1 || fail "a third start: $(tail -2 third.log)"
[ "$(ls run/tb | wc -l)" -eq 3 ] || fail "not a file for each start: $(ls run/tb)"
"${TB_READER:-python3}" "$SOURCE/tests/system/tb_read.py" ${TB_READER:+--tensorboard} run || fail "what a reader finds is not metrics.jsonl"

# A file cut in the middle of a record: everything before it is there.
last=run/tb/$(ls run/tb | tail -n 1)
truncate -s -7 "$last"
"${TB_READER:-python3}" "$SOURCE/tests/system/tb_read.py" ${TB_READER:+--tensorboard} --cut run || fail "a cut file"

# If the option is off, no file is written; if the folder cannot be written, the curves are missing, but the run continues.
train 2 --set run.dir=off --set trainer.tensorboard=false > off.log 2>&1 || fail "off: $(tail -2 off.log)"
[ ! -e off/tb ] || fail "trainer.tensorboard=false wrote files"
mkdir barred
echo "no folder" > barred/tb
train 2 --set run.dir=barred > barred.log 2>&1 || fail "barred: $(tail -2 barred.log)"
grep -q 'level=warn .*event=tensorboard.none' barred.log || fail "said nothing of the curves: $(cat barred.log)"
grep -q 'event=run.done' barred.log || fail "the run did not go on"
