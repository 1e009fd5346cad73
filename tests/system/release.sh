# SPDX-License-Identifier: Apache-2.0
# Teachers end by themselves, after selector.teacher_idle_s without work and at the switch, with exit code 0, and no supervisor restarts them. `down`
# during the work loses no acknowledged record: it is in the cache and is not made again.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
fleet() { timeout 100 "$SOURCE/deploy/local.sh" "$1" --bin "$BIN" -c fleet.yaml "${@:2}" > out 2>&1 || fail "$*: exit code $?: $(cat out)"; }
trap 'fleet down; cleanup' EXIT
small_corpus
small_model slm 11
small_model student -
ln -s slm teacher
ln -s slm scorer
small_fleet fleet.yaml "$(free_port)"
sed -i 's/steps: 12,/steps: 300,/; s/checkpoint_every: 3/checkpoint_every: 0/; s/phase_one: {steps: 6/phase_one: {steps: 200/; s/eval_every: 6/eval_every: 0/' fleet.yaml
d=run/daemons
ended() {		# ended REASON TEACHER...: each teacher ended by itself with 0, both sides logged it, and its supervisor ended too
	local reason=$1 t tenths=300
	shift
	for t; do
		until [ -e $d/$t.exit ]; do
			[ $((tenths--)) -gt 0 ] || fail "$t was not released: $(tail -n 3 run/logs/$t.log run/logs/selectord.log)"
			sleep 0.1
		done
		[ "$(cat $d/$t.exit)" = "0 done" ] || fail "$t: $(cat $d/$t.exit), expected 0 done"
		flock -w 10 $d/$t.lock true || fail "the supervisor of $t goes on"
		grep -q "event=released reason=\"$reason\"" run/logs/$t.log || fail "$t does not say why it ended: $(tail -n 3 run/logs/$t.log)"
		[ "$(grep -c event=daemon.start run/logs/$t.log)" = "$(grep -c 'event=daemon.exit .*code=0' run/logs/$t.log)" ] ||
		    fail "$t was started again: $(grep prog=supervise run/logs/$t.log)"
		grep -q "event=teacher.released name=$t reason=\"$reason\"" run/logs/selectord.log || fail "selectord does not tell of $t"
	done
}
# No labels are requested: both teachers end, selectord stays. up starts them again, and they end again.
fleet up --only selectord,teachers --set deploy.teachers=2 --set selector.teacher_idle_s=1
ended idle teacherd-0 teacherd-1
[ ! -e $d/selectord.exit ] || fail "selectord ended with them"
fleet up --only teachers --set deploy.teachers=1
ended idle teacherd-0
[ "$(grep -c event=daemon.start run/logs/teacherd-0.log)" = 2 ] || fail "up did not bring the teacher back"
fleet down

# Phase one of a trainer: at the switch both teachers end while the trainer continues; an up in phase two does not start them.
fleet up --wait --set deploy.teachers=2
ended 'plans released' teacherd-0 teacherd-1
[ "$(cat $d/trainerd.exit)" = "0 done" ] && [ ! -e $d/selectord.exit ] || fail "the switch ended others: $(cat $d/*.exit)"
grep -q '"event":"switch"' run/metrics.jsonl && [ "$(grep -c '"kind":"step"' run/metrics.jsonl)" = 300 ] || fail "no switch, or not 300 steps"
fleet up --set deploy.teachers=2
[ "$(grep -c event=daemon.start run/logs/teacherd-1.log)" = 2 ] || fail "a teacher was started in phase two"
fleet down

# down during the work, five times: everything that selectord acknowledged is in the cache. A simulated teacher keeps the list. (Here labels come with
# the scores; those of sequences that are not chosen would be dropped.)
mkdir fakes
"$BIN/fakes" files "$scratch/fakes" || fail "fakes files"
port=$(free_port)
cat > fleet.yaml <<END
run: {dir: run2, seed: 1}
corpus: {train: fakes/train, heldout: fakes/held, context: 16}
cache: {dir: cache2, map_size: 1GiB, keep_unselected: true}
teacher: {model: fakes/model}
labels: {kind: sampled, samples: 4}
selector: {mode: salt_ds, block: 64, keep_share: 0.5, endpoints: ["tcp://127.0.0.1:$port"], lease_sequences: 4, commit_ms: 20, label_ahead_steps: 1000}
trainer: {model: fakes/model, steps: 500, batch: 8, threads: 1}
phase_one: {steps: 400}
END
fleet up --only selectord
start teacher "$BIN/fakes" teacher "tcp://127.0.0.1:$port" "$scratch/fakes" told="$scratch/told"
touch told
for round in 1 2 3 4 5; do
	"$BIN/saltctl" label -c fleet.yaml --no-wait > /dev/null || fail "saltctl label"
	before=$(wc -l < told)
	for ((i = 0; i < 1200; i++)); do
		[ "$(wc -l < told)" -lt $((before + 200)) ] || break
		sleep 0.1
	done
	[ $i -lt 1200 ] || fail "round $round: no 200 more: $(tail -n 3 run2/logs/selectord.log teacher.log)"
	fleet down
	grep -q 'selectord: stopped' out && [ "$(cat run2/daemons/selectord.exit)" = "0 stopped" ] || fail "down: $(cat out run2/daemons/selectord.exit)"
	sort -u told > want
	"$BIN/cache_dump" cache2 12000 | cut -d ' ' -f 1,2 | sort -u > have
	lost=$(comm -23 want have)
	[ -z "$lost" ] || fail "round $round: acknowledged and not stored: $(head -n 5 <<< "$lost")"
	fleet up --only selectord
done
! grep LOST teacher.log || fail "what was acknowledged was asked for again"
[ "$(wc -l < want)" -ge 1000 ] || fail "too little was acknowledged to say anything"
kill "$teacher"
