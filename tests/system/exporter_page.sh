# SPDX-License-Identifier: Apache-2.0
# The dashboard in a headless Chromium, with a real fleet: its numbers are those of the status sockets, it updates by itself, keys work, it fits a
# phone, and the console has no error. SHOTS: a folder for screenshots.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
. "$(dirname "$0")/exporter_fleet.sh"
driver=$(command -v chromedriver) && command -v chromium > /dev/null || { echo "SKIP: no chromium here (Debian's packages chromium and chromium-driver)"; exit 77; }
[ -e /usr/share/javascript/chart.js/chart.min.js ] || { echo "SKIP: no Chart.js here (Debian's package libjs-chart.js)"; exit 77; }
cd "$scratch"
look() {
	HOME=$scratch timeout 90 python3 "$SOURCE/tests/system/exporter_page.py" "$1" "$driver" "$BIN/saltctl" "$2" ${SHOTS:+"$SHOTS"} > "page_$1.log" 2>&1 ||
		fail "the page, $1: $(cat "page_$1.log"; tail -3 trainer.log 2>/dev/null)"
	cat "page_$1.log"
}
exporter_files
# A run that is past its switch, shown beside the one in progress.
mkdir old
cp slm/fleet.yaml old/
sed 's/"phase":2/"phase":1/' slm/metrics.jsonl | sed '40a {"kind":"event","event":"switch","step":40,"rows_seen_again":0}' > old/metrics.jsonl
exporter_start
exporter_fleet
look rest "$url"

# The same without Chart.js: the page has the figures, and names the package to install.
if unshare -m true 2> /dev/null; then
	mkdir empty
	start bare timeout 100 unshare -m sh -c 'mount --bind empty /usr/share/javascript && exec "$@"' - \
		"$BIN/saltctl" exporter -c fleet.yaml --listen 127.0.0.1:0 --every 0.5
	until_line bare.log '^http://'
	look bare "$(grep -m1 '^http://' bare.log)"
	stop TERM "$bare"
else
	echo "not shown: the page without Chart.js (no private mounts here)"
fi

exporter_train --set phase_one.steps=100000
look train "$url"
