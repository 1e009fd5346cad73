# SPDX-License-Identifier: Apache-2.0
# A real Prometheus reads the exporter of a real fleet, with the files of deploy/prometheus, and gets the figures of the daemons. promtool accepts
# the metrics, the rules and the configuration, and each alert fires in its situation.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
. "$(dirname "$0")/exporter_fleet.sh"
for program in prometheus promtool; do
	command -v $program > /dev/null || { echo "SKIP: no $program here (Debian's package prometheus)"; exit 77; }
done
cd "$scratch"
cp "$SOURCE"/deploy/prometheus/*.yml "$SOURCE/tests/system/alerts_test.yml" .
promtool check rules alerts.yml > out 2>&1 || fail "promtool check rules: $(cat out)"
promtool check config prometheus.yml > out 2>&1 || fail "promtool check config: $(cat out)"
promtool test rules alerts_test.yml > out 2>&1 || fail "promtool test rules: $(cat out)"

exporter_files
exporter_start
exporter_fleet
target=${url#http://} port=$(free_port)
sed -i "s/127.0.0.1:9797/${target%/}/; s/5s/500ms/" prometheus.yml
start prometheus timeout 150 prometheus --config.file=prometheus.yml --storage.tsdb.path=tsdb --web.listen-address="127.0.0.1:$port" --log.level=warn
known() {
	timeout 60 python3 "$SOURCE/tests/system/exporter_prometheus.py" "$1" "$BIN/saltctl" "http://127.0.0.1:$port" "$SOURCE/deploy/grafana/dashboard.json" ||
		fail "what Prometheus knows: $(tail -5 prometheus.log)"
}
known rest
exporter_train --set phase_one.steps=100000
known train

curl -fs "${url}metrics" > metrics || fail "metrics"
promtool check metrics < metrics > out 2>&1 && [ ! -s out ] || fail "promtool check metrics: $(cat out)"
# Every metric that a rule or Grafana's dashboard uses.
grep -ohE 'salt_[a-z_]+' alerts.yml "$SOURCE/deploy/grafana/dashboard.json" | sort -u > wanted
sed -n 's/^# TYPE \([^ ]*\) .*/\1/p' metrics | sort -u > there
comm -23 wanted there > unknown
[ ! -s unknown ] || fail "asked for by rules or dashboard, and not among the metrics: $(cat unknown)"
# Prometheus rejected no sample.
[ "$(grep -c 'level=\(warn\|error\)' prometheus.log)" = 0 ] || fail "Prometheus says: $(cat prometheus.log)"
