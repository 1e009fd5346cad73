# SPDX-License-Identifier: Apache-2.0
# bench/cuda/session.sh on the emulated plug-in (PLUGIN), with tiny shapes: the results of its steps are in the JSON and in the table. If a step
# fails, crashes, hangs or writes no JSON, only its own results are missing. Missing tools are named, and so is a machine without a GPU.
. "$SOURCE/tests/system/lib.sh"
: "${PLUGIN:?the emulated libsalt_cuda.so}"
session=$SOURCE/bench/cuda/session.sh
cd "$scratch"
bash "$SOURCE/bench/cuda/pack.sh" --build "$(dirname "$BIN")" --out pack > pack.log 2>&1 || fail "pack.sh: $(tail -1 pack.log)"
mkdir tools none
for tool in bash env cat sed awk grep tr cut tail head date mktemp rm mkdir mv dirname basename setsid sleep timeout nproc sh; do
	ln -s "$(command -v $tool)" none/
done

# holds FILE PYTHON: a Python expression about the rows, by name, is true.
holds() {
	python3 - "$1" "$2" <<'END' || fail "$1: not $2: $(cat "$1")"
import json, sys
rows = {r["name"]: r for r in json.load(open(sys.argv[1]))}
for r in rows.values():
    assert {"name", "value", "unit", "peer", "peer_value", "ratio"} <= r.keys(), r
    assert r["value"] is not None or r["why"], r
sys.exit(not eval(sys.argv[2]))
END
}

# session CODE OUT ARGUMENT...
session() {
	local code=$1 out=$2 rc=0
	shift 2
	timeout 400 bash "$session" --pack pack --out "$out" --emulated "$PLUGIN" --seconds 2000 "$@" > "$out.log" 2>&1 || rc=$?
	[ $rc = "$code" ] || fail "exit code $code expected, found $rc: $(tail -5 "$out.log")"
}
slow=(--limit kernel_times:300 --limit kernels_label:300 --limit two_runs:300 --limit labels_same:300 --limit train_124m:300 --limit peer_124m:300 --limit kernels_small_label:300)

# Without any tool: all steps that can run pass.
PATH=$scratch/none SALT_PEERS_PYTHON=$scratch/none/python session 0 plain "${slow[@]}" \
	--only kernels_label,two_runs,labels_same,train_124m,kernel_times,peer_124m,memcheck,racecheck
holds plain/results.json 'rows["kernels_label"]["value"] == 1 and "0 failures" in rows["kernels_label"]["why"]'
holds plain/results.json 'rows["two_runs_same_bits"]["ratio"] == 1 and rows["labels_same_bytes"]["ratio"] == 1'
holds plain/results.json 'rows["attention backward"]["value"] > 0 and rows["copy"]["unit"] == "GB/s" and rows["micro-batch"]["value"] > 0'
holds plain/results.json 'rows["train_gpt2_124m_cuda"]["value"] > 0 and rows["ceiling_gpt2_124m_cuda"]["peer"] == "its products, cuBLASLt"'
holds plain/results.json '"peak of CPU emulation is not in" in rows["mfu_gpt2_124m_cuda"]["why"]'
holds plain/results.json '"no nvidia-smi" in rows["driver"]["why"] and "no PyTorch" in rows["peer_124m"]["why"]'
holds plain/results.json '"no compute-sanitizer" in rows["memcheck"]["why"] and "kernels_loss" not in rows'
grep -q '^| `two_runs_same_bits` | 11 equal | losses and weights, 11 | 1 |' plain/table.md || fail "no table: $(cat plain/table.md)"

# 499 ids, of which products take 496 at once: no large product has rows that a device reads less than 16 bytes at a time.
CUDA_EMU_ALIGNED=65536 PATH=$scratch/none session 0 aligned "${slow[@]}" --only two_runs

# With tools, and with other programs in place of the tests. The stand-in for PyTorch answers in the format of the benches' comparison programs.
cat > tools/nvidia-smi <<'END'
#!/bin/sh
echo 'A "GPU", 580.1, 1980 MHz'
END
cat > tools/compute-sanitizer <<'END'
#!/bin/sh
[ "$2" = racecheck ] && { echo "RACECHECK SUMMARY: 2 hazards"; exit 9; }
shift 4
"$@" && echo "ERROR SUMMARY: 0 errors"
END
cat > tools/python <<'END'
#!/bin/sh
[ "$1" = -c ] && { echo "PyTorch 9.9 GPU"; exit; }
echo "ready PyTorch 9.9 on the GPU"
while read -r _; do echo "0.001 compiled"; done
END
printf '#!/bin/sh\nsleep 987654 & sleep 987654\n' > pack/bin/test_plugin_reference
printf '#!/bin/sh\nprintf "2 of \\\\ \\"3\\"\\001 checks failed\\n"; exit 1\n' > pack/bin/test_plugin_loss
printf '#!/bin/sh\nkill -SEGV $$\n' > pack/bin/test_plugin_bf16
printf '#!/bin/sh\necho "5 checks, 0 failures"\n' > pack/bin/test_plugin_documents
cp pack/bin/test_plugin_documents pack/bin/test_plugin_muon
cat > pack/bin/bench_teacher <<'END'
#!/bin/sh
while [ "$1" != --json ]; do shift; done
echo '{"half": ' > "$2"
END
chmod +x tools/* pack/bin/*
PATH=$scratch/tools:$PATH SALT_PEERS_PYTHON=$scratch/tools/python session 1 faults "${slow[@]}" --limit kernels_reference:2 --limit train_1558m:1 \
	--only kernels_reference,kernels_loss,kernels_bf16,kernels_documents,labels_same,peer_124m,memcheck,racecheck,train_1558m
! pgrep -f 'sleep 987654' > /dev/null || fail "what hangs still runs"
holds faults/results.json 'rows["kernels_reference"]["value"] == 0 and "took longer than 2 s" in rows["kernels_reference"]["why"]'
holds faults/results.json 'rows["kernels_loss"]["value"] == 0 and rows["kernels_loss"]["why"] == "exit code 1: 2 of \\ \"3\" checks failed"'
holds faults/results.json 'rows["kernels_bf16"]["value"] == 0 and "exit code 139" in rows["kernels_bf16"]["why"]'
holds faults/results.json 'rows["kernels_documents"]["value"] == 1 and rows["memcheck"]["value"] == 1 and rows["racecheck"]["value"] == 0'
holds faults/results.json '"exit code 9" in rows["racecheck"]["why"] and "ERROR SUMMARY" in rows["memcheck"]["why"]'
holds faults/results.json '"labels_same.json" in rows and rows["labels_same.json"]["value"] is None'
holds faults/results.json '"PyTorch 9.9 on the GPU, compiled" == rows["train_gpt2_124m_cuda"]["peer"] and rows["train_gpt2_124m_cuda"]["ratio"] < 1'
holds faults/results.json 'rows["driver"]["why"].startswith("A \"GPU\", 580.1") and "no time left" in rows["train_1558m"]["why"]'

# No device, no programs.
CUDA_EMU_DEVICE=none session 78 none78
grep -q 'found none' none78.log && grep -q 'no GPU that the plug-in can use' none78.log || fail "$(cat none78.log)"
rc=0
bash "$session" --pack "$scratch/tools" > bare.log 2>&1 || rc=$?
[ $rc = 66 ] && grep -q pack.sh bare.log || fail "without programs: exit code $rc: $(cat bare.log)"
