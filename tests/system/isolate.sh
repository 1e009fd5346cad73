# SPDX-License-Identifier: Apache-2.0
# corpus.isolate_documents through the fleet: scored, labelled and trained with the same losses at R = 1 and 2; stored labels equal those that the
# teacher computes again; `eval -c` gives the trainer's figure; daemons, caches and runs that disagree are refused with the option's name, and so is a
# corpus without an end-of-document id.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
ctl() { timeout 60 "$BIN/saltctl" "$@"; }
cd "$scratch"
small_corpus
small_model teacher 1
small_model scorer 4
small_model student -
small_fleet fleet.yaml "$(free_port)"
sed -i 's/context: 32}/context: 32, isolate_documents: true}/; s/steps: 12, /steps: 8, /; s/k: 200/k: 255/' fleet.yaml

start selectord "$BIN/selectord" -c fleet.yaml
start teacherd "$BIN/teacherd" -c fleet.yaml
until_line teacherd.log 'selectord.welcome'
for r in 1 2; do
	timeout 100 "${mpirun[@]}" -n $r "$BIN/trainerd" -c fleet.yaml --set run.dir=run_$r > trainer_$r.log 2>&1 || fail "trainerd at R = $r: $(tail -3 trainer_$r.log)"
	losses run_$r/metrics.jsonl | grep -v '"kind":"run"' | sed 's/,"label_bytes".*//' > losses_$r
	[ $r = 1 ] || same losses_1 losses_$r "isolated documents at R = $r"
done
grep -q '"step":8,' losses_1 || fail "no eighth step: $(cat losses_1)"
ctl eval -c fleet.yaml --model run_1/checkpoints/step_00000008 --json > eval.json
python3 - eval.json run_1/metrics.jsonl <<'END'
import array, json, sys
got = json.load(open(sys.argv[1]))
want = [x for x in map(json.loads, open(sys.argv[2])) if x["kind"] == "eval"][-1]
ids = array.array("H", open("held.bin", "rb").read())
targets = sum(ids[t] != 0 for t in range(8 * 32))               # 0 ends documents
assert got["tokens"] == want["tokens"] == targets < 256 and got["log_perplexity"] == want["loss"], (got, want, targets)
END
ctl eval --model run_1/checkpoints/step_00000008 --corpus held --context 32 --windows 8 --group 2 --lanes 4 --isolate-documents --json > eval2.json
ctl eval --model run_1/checkpoints/step_00000008 --corpus held --context 32 --windows 8 --group 2 --lanes 4 --json > plain.json
python3 - eval.json eval2.json plain.json <<'END'
import json, sys
a, b, plain = (json.load(open(path))["log_perplexity"] for path in sys.argv[1:])
assert abs(a - b) < 1e-6 and abs(a - plain) > 1e-4, (a, b, plain)
END
stop TERM $teacherd
ctl cache stat -c fleet.yaml --fidelity > stat.txt || fail "fidelity: $(cat stat.txt)"
grep -q "^labelled again *4 of 4 " stat.txt || fail "the same teacher gives other labels: $(grep -A5 fidelity stat.txt)"

# refused CODE PATTERN COMMAND...
refused() {
	local code=$1 pattern=$2 got=0
	shift 2
	timeout 30 "$@" > refused.log 2>&1 || got=$?
	[ $got = "$code" ] && grep -q -- "$pattern" refused.log || fail "$*: exit $got, expected $code and \"$pattern\": $(tail -2 refused.log)"
}
refused 78 'corpus.isolate_documents.*true, documents end with token 0.*false\|corpus.isolate_documents.*false.*true' \
	"$BIN/trainerd" -c fleet.yaml --set run.dir=run_3 --set corpus.isolate_documents=false
refused 78 'corpus.isolate_documents' "$BIN/trainerd" -c fleet.yaml --set run.dir=run_1 --set trainer.steps=9 --set corpus.isolate_documents=false
stop TERM $selectord
refused 78 'corpus' "$BIN/selectord" -c fleet.yaml --set corpus.isolate_documents=false
python3 - <<'END'
import json
about = json.load(open("train.json"))
del about["eod"], about["check"]
json.dump({**about, "version": 1}, open("train.json", "w"))
END
refused 65 'isolate_documents: expected the id that ends documents' "$BIN/selectord" -c fleet.yaml --set cache.dir=other
