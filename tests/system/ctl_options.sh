# SPDX-License-Identifier: Apache-2.0
# Options of saltctl that no other test uses: each has its documented effect.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
tok="$SOURCE/share/tokenizer-4k"
ctl() { timeout 60 "$BIN/saltctl" "$@"; }
field() { sed -n "s/^ *\"$1\": *\(.*[^,]\),*$/\1/p" "$2" | head -1; }

# tokenizer: every id listed, specials left out, and the end of a document by name.
ctl tokenizer info "$tok" --ids > ids
[ "$(wc -l < ids)" = 4096 ] && [ "$(cut -f1 ids | tail -1)" = 4095 ] || fail "tokenizer info --ids: $(tail -1 ids)"
[ "$(grep -cP '^0\t<\|endoftext\|>\tspecial$' ids)" = 1 ] || fail "tokenizer info --ids: $(head -1 ids)"
out=$(echo 0 | ctl tokenizer decode --tokenizer "$tok" --skip-specials) && [ -z "$out" ] || fail "tokenizer decode --skip-specials"
printf 'one text\n\nanother\n' > text
ctl corpus build --tokenizer "$tok" --split-on blank-lines --out plain text > /dev/null
ctl corpus build --tokenizer "$tok" --split-on blank-lines --eod '<|endoftext|>' --out named text > /dev/null
same plain.bin named.bin "corpus build --eod"
got=0; ctl corpus build --tokenizer "$tok" --eod '<nothing>' --out none text > /dev/null 2> err || got=$?
[ $got != 0 ] && grep -q '<nothing>' err || fail "corpus build --eod with an unknown token: $got $(cat err)"

# model: the rotary base, the tensors, memory of a larger micro-batch.
ctl model new --layers 2 --width 32 --heads 4 --context 16 --vocab 50 --rope-theta 123456 m > /dev/null
grep -q '"rope_theta": *123456' m/config.json || fail "model new --rope-theta: $(cat m/config.json)"
ctl model new --family gemma2 --layers 5 --width 32 --heads 4 --context 16 --vocab 50 gemma > /dev/null
ctl model info gemma --json > one
[ "$(field window one)$(field window_layers one)" = 40963 ] || fail "model info of a model with windows: $(cat one)"
ctl model info gemma | grep -q '^window *4096 tokens in 3 layers' || fail "model info: $(ctl model info gemma)"
ctl model info m --json --tensors > one
ctl model info m --json --micro-batch 4 > four
[ "$(sed -n 's/.*"elements": *\([0-9]*\).*/\1/p' one | awk '{ n += $1 } END { printf "%d", n }')" = "$(field params one)" ] || fail "model info --tensors: $(cat one)"
[ "$(field train_activation_bytes four)" -gt $((2 * $(field train_activation_bytes one))) ] || fail "model info --micro-batch"

# plan: the given saving and label bytes are used; a faster network inside a host makes steps shorter.
small_corpus
small_model student -
small_fleet f.yaml 5555
sed -i 's/^teacher:.*/teacher: {model: student}/' f.yaml
echo '{"latency_seconds": 1e-3, "bytes_per_second": 1e6}' > slow
echo '{"latency_seconds": 0, "bytes_per_second": 1e12}' > fast
plan() { ctl plan -c f.yaml --flops-per-second 1e9 --ranks 2 --network slow --json "$@"; }
plan --saving 0.125 --label-bytes 77 > p
[ "$(field assumed_saving p)" = 0.125 ] && [ "$(field label_bytes_per_token p)" = 77.0 ] || fail "plan --saving --label-bytes: $(cat p)"
plan --ranks-per-host 2 > near
plan --ranks-per-host 2 --local-network fast > local
awk -v a="$(field gather_seconds near)" -v b="$(field gather_seconds local)" 'BEGIN { exit !(b < a / 100) }' ||
	fail "plan --local-network: gather takes $(field gather_seconds local) s, $(field gather_seconds near) s without"

# status --watch prints again and again, exporter --runs shows another folder's runs.
true > watched		# must exist before the loop reads it
ctl status --endpoint tcp://127.0.0.1:1 --timeout 0.1 --watch 0.1 > watched 2>&1 &
for ((i = 0; i < 100; i++)); do [ "$(grep -c '^role' watched || true)" -lt 2 ] || break; sleep 0.1; done
kill %1
[ "$(grep -c '^role' watched)" -ge 2 ] || fail "status --watch: $(cat watched)"
mkdir -p others/there
printf '%s\n' '{"kind":"step","step":1,"hard":4.5,"seconds":1}' '{"kind":"eval","step":1,"loss":4.25}' > others/there/metrics.jsonl
"$BIN/saltctl" exporter --endpoint tcp://127.0.0.1:1 --listen 127.0.0.1:0 --runs others > exporter.log 2>&1 &
for ((i = 0; i < 100; i++)); do
	if grep -q '^http' exporter.log 2> /dev/null && curl -fs "$(head -1 exporter.log)api/runs" > runs.json; then break; fi
	sleep 0.1
done
grep -q '"name":"there"' runs.json || fail "exporter --runs: $(cat exporter.log runs.json)"
for dir in nowhere text; do
	got=0; timeout 20 "$BIN/saltctl" exporter --endpoint tcp://127.0.0.1:1 --listen 127.0.0.1:0 --runs $dir > out 2> err || got=$?
	[ $got = 66 ] && [ ! -s out ] && grep -q -- "^saltctl exporter: --runs: expected a folder that can be read, found $dir: " err ||
		fail "exporter --runs $dir: $got $(cat out err)"
done
