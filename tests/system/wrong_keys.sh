# SPDX-License-Identifier: Apache-2.0
# Ten kinds of wrong keys against each of the three daemons (wrong_keys.c): all 30 are refused, counted and logged.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
small_corpus
small_model "$scratch/student" -
small_model "$scratch/teacher" 11
ln -s teacher scorer
small_fleet fleet.yaml "$(free_port)"
echo 'security: {curve_dir: keys}' >> fleet.yaml
sed -i 's/steps: 12,/steps: 100000,/; s/phase_one: {steps: 6/phase_one: {steps: 6000/' fleet.yaml
"$BIN/saltctl" keygen keys > /dev/null
start selectord "$BIN/selectord" -c fleet.yaml
start teacherd "$BIN/teacherd" -c fleet.yaml
start trainerd "$BIN/trainerd" -c fleet.yaml
status_of() { sed -n 's/.*"status": *"\([^"]*\)".*/\1/p' run/daemons/$1*.json 2> /dev/null | head -n 1; }
for name in selectord teacherd trainerd; do
	tenths=200
	until [ -n "$(status_of $name)" ]; do
		[ $((tenths--)) -gt 0 ] || fail "$name does not start: $(tail -n 3 $name.log)"
		sleep 0.1
	done
	key=${name%d}
	[ "$key" != selector ] || key=selector
	"$BIN/wrong_keys" keys "$key" "$(status_of $name)" $name.log || fail "$name accepts, or does not tell of, a wrong key"
done | tee table
[ "$(grep -c ' refused ' table)" = 30 ] || fail "not 30 of 30 were refused"
