# SPDX-License-Identifier: Apache-2.0
# saltctl top in a real terminal (tmux) with a real fleet: contents, keys, other sizes, a daemon that hangs; and as text.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
command -v tmux > /dev/null || { echo "skipped: no tmux (deploy/install-deps.sh --tests)"; exit 77; }
cd "$scratch"
code() { local got=0; "$@" > out 2> err || got=$?; echo $got; }
tmux() { command tmux -L "salt_test_$$" -f /dev/null "$@"; }
end() { tmux kill-server 2> /dev/null || true; cleanup; }
trap end EXIT
screen() { tmux capture-pane -p -t top; }
sees() { screen > shot; grep -qE -- "$1" shot; }	# a file and not a pipe, because grep -q ends before its writer has finished
# until_screen REGEX [SECONDS]; until_gone REGEX
until_screen() {
	local tenths=$((${2:-30} * 10))
	until sees "$1"; do
		[ $((tenths--)) -gt 0 ] || { screen >&2; fail "top never showed \"$1\""; }
		sleep 0.1
	done
}
until_gone() {
	local tenths=300
	while sees "$1"; do
		[ $((tenths--)) -gt 0 ] || { screen >&2; fail "top still shows \"$1\""; }
		sleep 0.1
	done
}
small_corpus
small_model teacher 5
small_model student -
ln -s teacher scorer
small_fleet fleet.yaml "$(free_port)"
mkdir run
tmux new-session -d -s keep "sleep 400"	# a server ends with its last session, and would then also end a new-session that reaches it at that moment
more="--set trainer.steps=200000 --set phase_one.steps=100000 --set trainer.eval_every=0 --set trainer.checkpoint_every=0 --set selector.mode=none"

# Where top cannot run: a pipe, a terminal without the capabilities, no fleet.
[ "$(code timeout 20 "$BIN/saltctl" top -c fleet.yaml < /dev/null)" = 64 ] && grep -q 'saltctl top --once' err || fail "top in a pipe: $(cat out err)"
[ "$(code timeout 20 "$BIN/saltctl" top -c fleet.yaml --once)" = 69 ] && grep -q 'is the fleet up' err || fail "top --once without a fleet: $(cat out err)"
tmux new-session -d -s dumb -x 80 -y 24 "TERM=dumb timeout 20 '$BIN/saltctl' top -c fleet.yaml 2> dumb.err; echo \$? > dumb.code"
until_line dumb.code . 20
grep -q 64 dumb.code && grep -q 'TERM=dumb.*--once' dumb.err || fail "TERM=dumb: $(cat dumb.code dumb.err)"

timeout 300 "$BIN/selectord" -c fleet.yaml $more 2> selectord.log &
selectord=$!
"$BIN/trainerd" -c fleet.yaml $more > trainerd.log 2>&1 &
trainerd=$!
until_line trainerd.log 'event=rows.waiting'
tmux new-session -d -s top -x 80 -y 24 "LC_ALL=C.UTF-8 timeout --foreground 280 '$BIN/saltctl' top -c fleet.yaml --interval 0.3 --timeout 1; echo ended \$?; sleep 100"
until_screen '^trainer  waiting for rows for '
until_screen '^ROLE +NAME +(HOST +)?STATE'
until_screen '^selectord +selectord +([^ ]+ +)?waiting for teachers'
until_screen '^q quit  p pause  s sort: role'
sees '^saltctl top .*run +2 daemons  [0-9:]{8}' || fail "title: $(head -1 shot)"
[ "$(screen | wc -l)" = 24 ] || fail "$(screen | wc -l) lines on a screen of 24"

# A teacher joins: rows arrive, losses are drawn, and an expected end is shown.
"$BIN/teacherd" -c fleet.yaml $more --name teacherd-0 2> teacherd.log &
teacher=$!
until_screen '^teacherd +teacherd-0 .*tokens/s'
until_screen '^phase    phase one  \[[#>|-]+\]  step [1-9][0-9]* of 200000 \([0-9]+%\)'
until_screen '^loss     [0-9]+\.[0-9]{4}  .*[▁▂▃▄▅▆▇█]{8}'
until_screen '^switch   in [0-9:.]+( s)? \(step 100000\)   end in [0-9:]+ .*steps/s'
until_screen '^rows     .* ahead \(trainer: [0-9]+ steps\)  [^ ]+( [kM])? labels/s  (.* scores/s  )?1 teacher'

# Keys.
tmux send-keys -t top s
until_screen 's sort: name'
tmux send-keys -t top e
until_screen '^ROLE .*LAST ERROR'
tmux send-keys -t top e
until_screen '^ROLE .*RATES'
tmux send-keys -t top p
until_screen 'PAUSED'
paused=$(screen | grep '^phase')
sleep 1.5
[ "$(screen | grep '^phase')" = "$paused" ] || fail "it moves while paused: $paused, then $(screen | grep '^phase')"
tmux send-keys -t top p
until_gone 'PAUSED'
for ((i = 0; i < 100; i++)); do [ "$(screen | grep '^phase')" = "$paused" ] || break; sleep 0.1; done
[ "$(screen | grep '^phase')" != "$paused" ] || fail "it stands still after a pause"

# Other sizes, down to very small ones.
for size in 120x40 50x12 20x6 80x24; do
	tmux resize-window -t top -x "${size%x*}" -y "${size#*x}"
	for ((i = 0; i < 200; i++)); do		# until the screen is drawn anew: a title, all lines, keys
		screen > shot
		[[ $(head -1 shot) != "saltctl top"* ]] || [ "$(wc -l < shot)" != "${size#*x}" ] || [[ $(tail -1 shot) != "q quit"* ]] || continue 2
		sleep 0.1
	done
	cat shot >&2
	fail "the screen does not become $size"
done

# A teacher that hangs does not affect the others: they are shown as before, and the teacher as not answering; then it answers again.
kill -STOP $teacher
until_screen '^teacherd +teacherd-0 +([^ ]+ +)?no answer'
until_screen '3 daemons, 1 silent'
sees '^selectord +selectord +([^ ]+ +)?[a-z]' || { screen >&2; fail "selectord is not shown while a teacher hangs"; }
[ "$(code timeout 60 "$BIN/saltctl" top -c fleet.yaml --once --timeout 1)" = 69 ] || fail "top --once with a teacher that hangs: $(cat out err)"
grep -qE '^teacherd +teacherd-0 +([^ ]+ +)?no answer' out && ! grep -q 'q quit' out || fail "top --once: $(cat out)"
kill -CONT $teacher
until_screen '^teacherd +teacherd-0 .*tokens/s'
until_gone 'silent'
[ "$(COLUMNS=60 code timeout 60 "$BIN/saltctl" top -c fleet.yaml --plain --ascii)" = 0 ] || fail "top --plain: $(cat out err)"
! grep -qE '.{61}' out && ! LC_ALL=C grep -q '[^ -~]' out && grep -q '^loss  ' out || fail "top --plain --ascii in 60 columns: $(cat out)"

# The end: after q and after TERM the terminal is restored.
tmux send-keys -t top q
until_screen '^ended 0'
tmux kill-session -t top
tmux new-session -d -s top -x 80 -y 24 "sh -c 'echo \$\$ > top.pid; NO_COLOR=1 exec \"$BIN/saltctl\" top -c fleet.yaml'; echo ended \$?; sleep 100"
until_line top.pid . 10
until_screen '^saltctl top '
kill -TERM "$(cat top.pid)"
until_screen '^ended 0'
stop USR1 $trainerd
stop TERM $teacher $selectord
