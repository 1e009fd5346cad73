#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# teacher.compute_class: with a declared class selectord and teacherd identify models by their files and announce that class; an architecture that
# only another teacher supports is accepted. Without a declared class it is refused, and the message names the option to set. saltctl and the other
# programs also handle such models.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
ctl() { timeout 60 "$BIN/saltctl" "$@"; }
cd "$scratch"
class=fp32/any

small_corpus
small_model teacher 1
small_model student -
cp -r teacher scorer
# An architecture that the engine does not support, with the same tensors.
cp -r teacher foreign
sed -i 's/"model_type": *"[a-z0-9]*"/"model_type": "mamba"/' foreign/config.json
grep -q mamba foreign/config.json || fail "config.json of the foreign model: $(cat foreign/config.json)"

small_fleet fleet.yaml "$(free_port)"
sed -i "s|teacher: {|teacher: {compute_class: $class, |; s|mode: salt_ds, ||" fleet.yaml

# ---- the label set's identity is the declared class and the hash of the files; teacherd works under it
start selectord "$BIN/selectord" -c fleet.yaml
until_line selectord.log 'event=identity'
hash=$(ctl model info teacher --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["files_hash"])')
grep -q "event=identity.*$class" selectord.log || fail "the class is not in the identity: $(grep 'event=identity' selectord.log)"
grep -q "event=identity.*$hash" selectord.log || fail "$hash is not in the identity: $(grep 'event=identity' selectord.log)"
# teacherd with auto has another class
status=0
timeout 30 "$BIN/teacherd" -c fleet.yaml --set teacher.compute_class=auto > auto.log 2>&1 || status=$?
[ $status = 78 ] || fail "teacherd under auto: exit $status: $(tail -1 auto.log)"
grep -q "models.compute_class: .*expected $class, found [bf]" auto.log || fail "which class: $(tail -1 auto.log)"
start teacherd "$BIN/teacherd" -c fleet.yaml
until_line teacherd.log 'selectord.welcome'
ctl label -c fleet.yaml --wait-max 40 > label.txt || fail "label: $(cat label.txt)"
grep -q "48 of 48 rows" label.txt || fail "rows: $(cat label.txt)"

# ---- fidelity: compared with the engine, with models identified by files; the class is the declared one
ctl cache stat -c fleet.yaml --fidelity > stat.txt || fail "fidelity"
grep -q "computed with *$class, a declared class" stat.txt || fail "fidelity does not say what it compares: $(grep -A5 fidelity stat.txt)"
grep -q "^labelled again *4 of 4 " stat.txt || fail "the same engine gives other labels: $(grep -A5 fidelity stat.txt)"
ctl cache stat --cache cache --corpus train --heldout held --teacher teacher --fidelity > /dev/null || fail "fidelity without fleet.yaml"
status=0
ctl cache stat -c fleet.yaml --fidelity --teacher foreign > foreign.txt 2>&1 || status=$?
[ $status = 65 ] && grep -q "python -m saltfleet.teacher.fidelity --model foreign" foreign.txt || fail "fidelity of a foreign model: exit $status: $(cat foreign.txt)"
stop TERM $teacherd $selectord

# ---- the class is part of the cache's identity and of the run's
status=0
timeout 30 "$BIN/selectord" -c fleet.yaml --set teacher.compute_class=bf16/torch-cuda > other.log 2>&1 || status=$?
[ $status = 78 ] && grep -q "label_set.compute_class.*expected.*$class.*found.*bf16/torch-cuda" other.log ||
	fail "another class on one cache: exit $status: $(tail -1 other.log)"

# ---- an unknown architecture: accepted with a class, refused without
foreign=(--set teacher.model=foreign --set teacher.scorer=foreign --set cache.dir=cache_foreign)
timeout 30 "$BIN/selectord" -c fleet.yaml "${foreign[@]}" -n > n.log 2>&1 || fail "a foreign model: $(tail -1 n.log)"
start selectord "$BIN/selectord" -c fleet.yaml "${foreign[@]}"
until_line selectord.log "event=identity.*teacher=$(ctl model info foreign --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["files_hash"])')"
grep -q "event=model.foreign option=teacher.model .*model_type.*mamba" selectord.log || fail "not said: $(cat selectord.log)"
stop TERM $selectord
status=0
timeout 30 "$BIN/selectord" -c fleet.yaml "${foreign[@]}" --set teacher.compute_class=auto -n > n.log 2>&1 || status=$?
[ $status = 65 ] && grep -q "teacher.model .*mamba.; for a teacher in PyTorch or vLLM set teacher.compute_class" n.log ||
	fail "a foreign model under auto: exit $status: $(tail -1 n.log)"
status=0
timeout 30 "$BIN/teacherd" -c fleet.yaml "${foreign[@]}" > t.log 2>&1 || status=$?
[ $status = 65 ] && grep -q "teacherd cannot compute this model.*deploy.teachers: 0" t.log || fail "teacherd on it: exit $status: $(tail -1 t.log)"
rm -r foreign_bare 2> /dev/null || true
mkdir foreign_bare && cp foreign/config.json foreign_bare
status=0
timeout 30 "$BIN/selectord" -c fleet.yaml --set teacher.model=foreign_bare --set cache.dir=cache_foreign -n > n.log 2>&1 || status=$?
[ $status = 66 ] && grep -q "teacher.model .*expected weights in \*.safetensors" n.log || fail "without weights: exit $status: $(tail -1 n.log)"

# ---- another tokenizer: the teacher may have compared the ids, so this is checked at HELLO; without a declared class it is refused at once
cp -r teacher wider
python3 - <<'END'
import json
t = json.load(open("wider/tokenizer.json"))
t["added_tokens"].append(dict(t["added_tokens"][0], id=max(t["model"]["vocab"].values()) + 99, content="<more>"))
json.dump(t, open("wider/tokenizer.json", "w"))
END
start selectord "$BIN/selectord" -c fleet.yaml --set teacher.model=wider --set teacher.scorer=wider --set cache.dir=cache_wider
until_line selectord.log event=start
grep -q "event=tokenizer.other file=" selectord.log || fail "another tokenizer: $(cat selectord.log)"
status=0
timeout 30 "$BIN/teacherd" -c fleet.yaml --set teacher.model=wider --set teacher.scorer=wider > t.log 2>&1 || status=$?
[ $status = 78 ] && grep -q "models.tokenizer: .*expected" t.log || fail "teacherd with another tokenizer: exit $status: $(tail -1 t.log)"
stop TERM $selectord
status=0
timeout 30 "$BIN/selectord" -c fleet.yaml --set teacher.model=wider --set teacher.scorer=wider --set cache.dir=cache_wider \
	--set teacher.compute_class=auto -n > n.log 2>&1 || status=$?
[ $status = 78 ] && grep -q "expected tokenizer" n.log || fail "another tokenizer under auto: exit $status: $(tail -1 n.log)"

# ---- a whole phase one is opened as a plan and checked with it
ctl config check -c fleet.yaml "${foreign[@]}" --quiet > /dev/null || fail "config check"
ctl plan -c fleet.yaml "${foreign[@]}" --json > plan.json || fail "plan"
ctl model info teacher --json > info.json
ctl model info foreign --json > foreign.json || fail "model info: a foreign model"
python3 - <<'END'
import json
plan, info, foreign = (json.load(open(f)) for f in ("plan.json", "info.json", "foreign.json"))
assert foreign["family"] == "mamba" and foreign["known"] is False, foreign
assert foreign["params"] == info["params"] == plan["teacher"]["params"], (foreign, info["params"], plan["teacher"])
assert plan["teacher"]["flops_per_token"] == 6 * info["params"]
assert foreign["files_hash"] != info["files_hash"], "config.json is part of it"
END
ctl plan -c fleet.yaml "${foreign[@]}" | grep -q "mamba: FLOPs as 6 a parameter" || fail "plan does not say what it assumes"
timeout 60 "$BIN/trainerd" -c fleet.yaml "${foreign[@]}" -n > /dev/null 2> n.log || fail "trainerd -n: $(tail -1 n.log)"
echo "declared_class: passed"
