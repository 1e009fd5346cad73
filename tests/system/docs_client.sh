# SPDX-License-Identifier: Apache-2.0
# docs/client.md: its programs are compiled with the flags of pkg-config after cmake --install, and run in a small fleet.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
cmake --install "$(dirname "$BIN")" --prefix "$scratch/usr" > install.log 2>&1 || fail "cmake --install: $(tail -3 install.log)"
pc=$(find "$scratch/usr" -name saltfleet.pc)
export PKG_CONFIG_PATH=${pc%/*} LD_LIBRARY_PATH=${pc%/pkgconfig/*} PATH=$BIN:$PATH

small_corpus
small_model models/slm 1
small_model student -
small_fleet fleet.yaml "$(free_port)"
sed -i "s|^teacher:.*|teacher: {model: models/slm, compute_class: fp32/any}|; s/mode: salt_ds/mode: none/" fleet.yaml
start selectord "$BIN/selectord" -c fleet.yaml
VERBOSE=1 timeout 100 python3 "$SOURCE/tests/snippets.py" "$SOURCE/docs/client.md" "$scratch" > snippets.log 2>&1 || fail "$(cat snippets.log)"
# The trainer of the page has seen labels in phase one and the switch, and the teacher was released.
[ "$(grep -c '^step [0-9]* phase 1 .* id [0-9]* has 0\.' snippets.log)" = 6 ] || fail "expected six steps with labels: $(cat snippets.log)"
[ "$(grep -c '^step [0-9]* phase 2 ' snippets.log)" = 6 ] || fail "expected six steps of phase two: $(cat snippets.log)"
stop TERM $selectord
grep -q 'event=plan.released' selectord.log && grep -q 'event=teacher.released' selectord.log || fail "no release: $(tail -20 selectord.log)"
