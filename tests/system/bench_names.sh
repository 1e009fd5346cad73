# SPDX-License-Identifier: Apache-2.0
# Every bench runs with its smallest shapes, and its file is JSON with the names that bench/README.md lists.
. "$SOURCE/tests/system/lib.sh"
build=$(dirname "$BIN")

# has FILE NAME...: FILE has rows with these names, each with a value or with the reason why there is none.
has() {
	local file=$1 name
	shift
	python3 - "$file" "$@" <<'END' || fail "$file"
import json, sys
rows = {r["name"]: r for r in json.load(open(sys.argv[1]))}
for name in sys.argv[2:]:
    row = rows[name]
    if not {"name", "value", "unit", "peer", "peer_value", "ratio"} <= row.keys():
        sys.exit(f"{name}: {row}")
    if not (row["value"] is None and row["why"] or row["value"] >= 0):
        sys.exit(f"{name}: {row}")
END
}

"$BIN/bench_train" --tiny --rounds 1 --json "$scratch/train.json" > /dev/null || fail bench_train
has "$scratch/train.json" train_gpt2_124m_bf16 share_of_ceiling train_small_bf16 train_llama_135m_bf16 train_gpt2_124m_fp32 \
	share_of_ceiling_fp32 kd_step_cost muon_step_cost muon_step_cost_16 document_step_cost_20 document_step_cost_200
"$BIN/bench_teacher" --tiny --rounds 1 --json "$scratch/teacher.json" > /dev/null || fail bench_teacher
has "$scratch/teacher.json" teacher_label_vs_forward teacher_label_vs_torch
"$BIN/bench_memory" --tiny --json "$scratch/memory.json" > /dev/null || fail bench_memory
has "$scratch/memory.json" rss_vs_plan rss_vs_saltctl_plan rss_vs_saltctl_plan_16
busy=busy
[ "$(nproc)" -ge 2 ] || busy=		# the bench needs two processors
for name in ranks feed start allreduce labels angle teachers client $busy; do
	"$SOURCE/bench/$name/$name.sh" --build "$build" --tiny --rounds 1 --json "$scratch/$name.json" > "$scratch/$name.log" ||
		fail "$name.sh: $(tail -1 "$scratch/$name.log")"
done
has "$scratch/ranks.json" ranks_2x1_vs_1x2
has "$scratch/feed.json" feed_wait_share
[ -z "$busy" ] || has "$scratch/busy.json" busy_machine_share busy_machine_share_ranks
has "$scratch/client.json" client_feed_tps client_feed_tps_2 client_feed_cpu client_feed_entries
has "$scratch/start.json" start_seconds
has "$scratch/teachers.json" teachers_label_tps_1 teachers_label_tps_2 teachers_label_tps_4
has "$scratch/labels.json" label_ratio_tau1 label_ratio_tau025 label_bytes_tau1 label_bytes_tau025 label_bound_tau1 label_encode_tps label_decode_tps
has "$scratch/angle.json" label_angle_deg label_angle_soft_deg label_gradient_error
has "$scratch/allreduce.json" allreduce_fixed_vs_mpi allreduce_fixed_vs_ireduce allreduce_hidden_share allreduce_early_share
# Benches of the Python package, if a Python has PyTorch.
for name in feed step teacher; do
	rc=0
	"$SOURCE/tests/peers/run.sh" "$SOURCE/bench/python/$name.py" --build "$build" --tiny --rounds 1 --json "$scratch/python_$name.json" \
		> "$scratch/python_$name.log" 2>&1 || rc=$?
	[ $rc = 77 ] && continue
	[ $rc = 0 ] || fail "bench/python/$name.py: $(tail -1 "$scratch/python_$name.log")"
	case $name in
	feed) has "$scratch/python_$name.json" python_feed_tps ;;
	step) has "$scratch/python_$name.json" python_kd_step_cost python_kd_loss_cost ;;
	teacher) has "$scratch/python_$name.json" python_teacher_vs_forward ;;
	esac
done
# With two comparison programs, each of which ends only when its input ends; the faster one counts.
cat > "$scratch/peer.sh" <<'END'
echo "ready PEER-$1"
while read -r _; do echo "$2 eager"; done
END
timeout 60 "$BIN/bench_train" --tiny --rounds 1 --only train_small_fp32 --peer "sh $scratch/peer.sh slow 20" --peer "sh $scratch/peer.sh fast 10" \
	--json "$scratch/peers.json" > "$scratch/peers.log" || fail "a comparison beside two peers: exit code $?: $(tail -1 "$scratch/peers.log")"
grep -q PEER-fast "$scratch/peers.json" || fail "not the faster peer: $(cat "$scratch/peers.json")"
! "$BIN/bench_train" --nonsense > /dev/null 2>&1 || fail "an unknown option was taken"
