# SPDX-License-Identifier: Apache-2.0
# Repeating a command is harmless: existing files stay the same, byte for byte, and a command that only reads prints the same.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
tree() { find . -type f ! -name 'said.*' ! -name tree.before -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; }
# twice CODE WORD...: the command exits with 0 the first time, then with CODE.
twice() {
	local code=$1 got=0
	shift
	timeout 60 "$BIN/saltctl" "$@" > said.1 2> said.err < /dev/null || fail "saltctl $*: $(cat said.err)"
	tree > tree.before
	timeout 60 "$BIN/saltctl" "$@" > said.2 2> said.err < /dev/null || got=$?
	[ $got = "$code" ] || fail "saltctl $* once more: exit code $got, expected $code: $(cat said.err)"
	tree | cmp -s - tree.before || { tree | diff tree.before - | head -5 >&2; fail "saltctl $* once more changed files"; }
	sed -i '/^took /d' said.1 said.2
	[ $got != 0 ] || same said.1 said.2 "saltctl $* once more"
	[ $got = 0 ] || [ -s said.err ] || fail "saltctl $* once more says nothing"
}
tok="$SOURCE/share/tokenizer-4k"
cp /usr/share/common-licenses/GPL-3 text
twice 73 corpus build --tokenizer "$tok" --split-on blank-lines --out train --heldout-out held text
twice 0 corpus info train --context 32 --check
twice 0 tokenizer encode --tokenizer "$tok" text
twice 0 tokenizer info "$tok"
twice 73 model new --layers 1 --width 32 --heads 2 --context 32 --tokenizer "$tok" --weights 5 student
twice 0 model info student
twice 73 model grow student grown --width 64 --noise 0.5
twice 73 keygen keys
small_fleet fleet.yaml "$(free_port)"
sed -i 's/^teacher:.*/teacher: {model: student}/' fleet.yaml
twice 0 config check -c fleet.yaml
twice 0 plan -c fleet.yaml --flops-per-second 1e9 --latency 1e-5 --bandwidth 1e9
twice 0 eval --model student --corpus held --context 32 --windows 4
twice 0 generate --model student --prompt 'The program' --tokens 5 --seed 3
timeout 60 "$BIN/trainerd" -c fleet.yaml --set phase_one.steps=0 --set selector.mode=none > said.log 2>&1 || fail "trainerd: $(tail -1 said.log)"
twice 0 report --run ONE=run --out report.html --table
twice 0 ledger --run run
# A file that is not a report is not replaced, unless that is requested.
cp text other.html
got=0; "$BIN/saltctl" report --run ONE=run --out other.html > said.1 2> said.err || got=$?
[ $got = 73 ] && cmp -s text other.html && grep -q 'other.html.*--replace' said.err || fail "report over another file: $got: $(cat said.err)"
"$BIN/saltctl" report --run ONE=run --out other.html --replace > said.1 && cmp -s report.html other.html || fail "report --replace"
# If the output is not read, no verb reports an error, whether the caller ignores SIGPIPE or not.
for words in help 'help --man' 'config check -c fleet.yaml' "tokenizer encode --tokenizer $tok text" 'run info -c fleet.yaml' \
    'ledger --run run' 'model info student --json'; do
	for ignore in : "trap '' PIPE"; do
		(eval "$ignore"; sleep 0.05; got=0; timeout 20 "$BIN/saltctl" $words 2> said.err || got=$?; echo $got > said.code) | :
		[ "$(cat said.code)" = 0 ] && [ ! -s said.err ] || fail "saltctl $words, unread: $(cat said.code said.err)"
	done
done
mkdir -p run/logs
echo 'ts=2026-01-01T00:00:00.000Z level=info event=a' > run/logs/trainerd.log
twice 0 logs -c fleet.yaml
