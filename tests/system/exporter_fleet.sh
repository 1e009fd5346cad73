# SPDX-License-Identifier: Apache-2.0
# Sourced after lib.sh and small.sh by the tests of saltctl exporter: a running fleet and an exporter that watches it.

# exporter_files: corpus, models and fleet.yaml (selectord's port is free) in $scratch, which is the current folder.
exporter_files() {
	small_corpus
	small_model "$scratch/student" -
	small_fleet fleet.yaml "$(free_port)"
	small_teachers fleet.yaml
}

# exporter_fleet: starts selectord and two teachers, named teacherd-0 and -1. All labels of phase one exist, so the figures do not change.
exporter_fleet() {
	start selectord timeout 200 "$BIN/selectord" -c fleet.yaml
	start teacher0 timeout 200 "$BIN/teacherd" -c fleet.yaml --name teacherd-0
	start teacher1 timeout 200 "$BIN/teacherd" -c fleet.yaml --name teacherd-1
	timeout 60 "$BIN/saltctl" label -c fleet.yaml > label.log 2>&1 || fail "labels: $(cat label.log selectord.log teacher0.log)"
	sleep 1.2		# selectord's figures may be a second old
}

# exporter_train [OPTION...]: starts a trainer that runs as long as the test needs it, in phase two unless the options say otherwise.
exporter_train() {
	start trainer timeout 200 "$BIN/trainerd" -c fleet.yaml --set trainer.steps=1000000 --set trainer.eval_every=200 --set trainer.checkpoint_every=0 "$@"
	until_line run/metrics.jsonl '"kind":"step","step":20,' 30
}

# exporter_start [OPTION...]: starts an exporter; $url is its address.
exporter_start() {
	start exporter timeout 200 "$BIN/saltctl" exporter -c fleet.yaml --listen 127.0.0.1:0 --every 0.5 --timeout 0.4 "$@"
	until_line exporter.log '^http://'
	url=$(grep -m1 '^http://' exporter.log)
	local tenths=50
	until curl -fso /dev/null "${url}metrics" && curl -fso /dev/null "${url}api/runs"; do
		[ $((tenths--)) -gt 0 ] || fail "the exporter has nothing to tell: $(cat exporter.log)"
		sleep 0.1
	done
}
