# SPDX-License-Identifier: Apache-2.0
# Every kind of label, tail rule, handover and mode trains to the end through the real programs, and metrics.jsonl has the right values.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"

small_corpus
small_model "$scratch/wide" 1 --vocab 4200		# padded beyond the tokenizer's ids
small_model "$scratch/student" -
small_model "$scratch/wide_student" - --vocab 4100
cd "$scratch"
small_fleet f.yaml "$(free_port)"
small_teachers f.yaml

# run NAME [OPTION...]: runs a whole fleet on the cache of that name.
run() {
	local name=$1
	shift
	start selectord "$BIN/selectord" -c f.yaml --set cache.dir="cache_$name" --set run.dir="run_$name" "$@"
	start teacherd "$BIN/teacherd" -c f.yaml --set run.dir="run_$name" "$@"
	timeout 60 "$BIN/trainerd" -c f.yaml --set run.dir="run_$name" "$@" > "$name.log" 2>&1 || { tail -3 "$name.log" >&2; fail "$name: exit code $?"; }
	stop TERM $selectord $teacherd
	grep -q "event=run.done steps=12 .*skipped=0" "$name.log" || fail "$name: $(tail -1 "$name.log")"
	grep '"kind":"step"' "run_$name/metrics.jsonl" > "$name.steps"
	[ "$(wc -l < "$name.steps")" = 12 ] || fail "$name: not 12 steps"
	! grep -qi '"loss":\(null\|nan\|inf\)' "$name.steps" || fail "$name: a loss that is no number"
}
# field NAME FIELD: the values of all steps, on one line.
field() {
	sed "s/.*\"$2\":\([^,}]*\).*/\1/" "$1.steps" | tr '\n' ' '
}
# expect NAME FIELD WANT: compares numbers to 6 digits.
expect() {
	local got
	got=$(field "$1" "$2" | awk '{ for (i = 1; i <= NF; i++) printf "%s%.6g", (i > 1 ? " " : ""), $i }')
	[ "$got" = "$3" ] || fail "$1: $2: expected $3, found $got"
}
# differ A B: the losses differ from the first step on, so the option had an effect.
differ() {
	[ "$(field "$1" loss | cut -d' ' -f1)" != "$(field "$2" loss | cut -d' ' -f1)" ] || fail "$1 and $2 have the same first loss"
}
six="0.667 0.667 0.667 0.667 0.667 0.667"
none="0 0 0 0 0 0"

run sampled
expect sampled weight "$six $none"
expect sampled phase "1 1 1 1 1 1 2 2 2 2 2 2"
expect sampled kd_tokens "256 256 256 256 256 256 $none"

# Kinds of labels and tail rules. All runs have the same rows, so that the first losses differ only by the labels; dense and topk with all ids are
# equal.
run dense --set labels.kind=dense
expect dense weight "$six $none"
for tail in true_token ghost renormalise; do
	run topk_$tail --set labels.kind=topk --set labels.k=12 --set phase_one.residual=$tail
	expect topk_$tail weight "$six $none"
done
differ dense sampled
differ topk_true_token topk_ghost
differ topk_true_token topk_renormalise
differ topk_ghost topk_renormalise
run topk_all --set labels.kind=topk --set labels.k=4096
paste -d' ' <(field dense loss | tr ' ' '\n') <(field topk_all loss | tr ' ' '\n') |
	awk 'NF == 2 && ($1 - $2 > 1e-3 || $2 - $1 > 1e-3) { exit 1 }' || fail "dense: $(field dense loss), top-k of all ids: $(field topk_all loss)"

# Token weights, for each kind of label. w of the row is unchanged; the mean over the tokens is smaller, and the loss differs.
run confidence --set phase_one.token_weight=teacher_confidence
run ahead --set phase_one.token_weight=margin --set labels.kind=topk --set labels.k=12 --set phase_one.residual=ghost
for rule in confidence ahead; do
	expect $rule weight "$six $none"
	field $rule token_weight | awk '{ for (i = 1; i <= 6; i++) if (!($i > 0 && $i < 0.6)) exit 1; exit !($7 == "null") }' ||
		fail "$rule: mean weights $(field $rule token_weight)"
done
expect sampled token_weight "$six $none"		# null where there is no label
differ confidence sampled
differ ahead topk_ghost

# Handover: w over the last four steps of phase one; linear in w, then in w / (1 - w).
run linear --set phase_one.handover=linear --set phase_one.handover_steps=4
run ratio --set phase_one.handover=ratio --set phase_one.handover_steps=4
for how in linear ratio; do
	field $how weight | awk -v how=$how '{
		for (i = 2; i <= 6; i++)
			if (!($i <= $(i - 1)))
				exit 1
		a = how == "linear" ? $3 : $3 / (1 - $3)
		b = how == "linear" ? $4 : $4 / (1 - $4)
		c = how == "linear" ? $5 : $5 / (1 - $5)
		d = how == "linear" ? $6 : $6 / (1 - $6)
		if (!($2 > 0.66 && $6 > 0 && $6 < $3 && $7 == 0))
			exit 1
		for (x = a - b - (b - c); x > 1e-5 || x < -1e-5;)
			exit 1
		for (x = b - c - (c - d); x > 1e-5 || x < -1e-5;)
			exit 1
	}' || fail "$how: weights $(field $how weight)"
done

# The end of phase one by margin: at an evaluation, stored in the checkpoints; the handover follows. The margin is chosen between the values at steps
# 3 and 6 of a run that never reaches it, because these depend on the machine's arithmetic and texts.
run never --set phase_one.until_margin=-100 --set phase_one.steps=0 --set trainer.eval_every=3
margin=$(sed -nE 's/.*"kind":"eval","step":[36],"loss":([0-9.]+),.*"teacher_loss":([0-9.]+),.*/\1 \2/p' run_never/metrics.jsonl |
    awk '{ above[NR] = $1 - $2 } END { if (NR != 2 || above[1] - above[2] < 0.01) exit 1; printf "%.3f", (above[1] + above[2]) / 2 }') ||
    fail "no evaluations, or no progress between steps 3 and 6: $(grep eval run_never/metrics.jsonl)"
! grep -q event=switch never.log || fail "phase one ended at a margin of -100"
run margin --set phase_one.until_margin="$margin" --set phase_one.steps=0 --set trainer.eval_every=3
grep -q 'event=switch step=6 .*switched_by=margin' margin.log || fail "margin: $(grep eval run_margin/metrics.jsonl)"
expect margin weight "$six $none"
[ "$(field margin loss | cut -d' ' -f1-6)" = "$(field sampled loss | cut -d' ' -f1-6)" ] || fail "margin: other losses than with phase_one.steps"
run margin_linear --set phase_one.until_margin="$margin" --set phase_one.steps=0 --set trainer.eval_every=3 --set phase_one.handover=linear --set phase_one.handover_steps=3
grep -q 'event=switch step=9 .*switched_by=margin' margin_linear.log || fail "margin_linear: $(grep switch margin_linear.log)"
field margin_linear weight | awk '{ exit !($6 > 0.66 && $7 <= $6 && $8 < $7 && $9 < $8 && $9 > 0 && $10 == 0) }' || fail "margin_linear: $(field margin_linear weight)"

# Modes: none and a pool; phase one as the whole run; late rows trained without the teacher; scorer = teacher; only labels.
run none --set selector.mode=none
run rkd --set phase_one.steps=12 --set selector.mode=none
grep -q "mode=rkd" rkd.log || fail "rkd: $(grep run.start rkd.log)"
expect rkd weight "$six $six"
run pool --set selector.pool=256
run same_model --set teacher.scorer=teacher
for other in none sampled; do
	[ "$(field pool loss)" != "$(field $other loss)" ] || fail "pool: the rows of $other"
done
[ "$(field same_model loss)" != "$(field sampled loss)" ] || fail "same_model: the rows that another scorer chose"
run wide --set teacher.model=wide --set teacher.scorer=wide --set trainer.model=wide_student
run wide_dense --set teacher.model=wide --set teacher.scorer=wide --set trainer.model=wide_student --set labels.kind=dense

# late: hard, without any teacher: every row is late, the trainer does not wait, and the losses are those of BASELINE.
start selectord "$BIN/selectord" -c f.yaml --set cache.dir=cache_late --set run.dir=run_late --set selector.mode=none
timeout 60 "$BIN/trainerd" -c f.yaml --set run.dir=run_late --set selector.mode=none --set phase_one.late=hard > late.log 2>&1 || fail "late: $(tail -1 late.log)"
stop TERM $selectord
grep '"kind":"step"' run_late/metrics.jsonl > late.steps
timeout 60 "$BIN/trainerd" -c f.yaml --set run.dir=run_base --set selector.mode=none --set phase_one.steps=0 > base.log 2>&1 || fail "base: $(tail -1 base.log)"
grep '"kind":"step"' run_base/metrics.jsonl > base.steps
expect late late_rows "8 8 8 8 8 8 $none"
[ "$(field late loss)" = "$(field base loss)" ] || fail "late: $(field late loss), baseline: $(field base loss)"
