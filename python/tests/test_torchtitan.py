# SPDX-License-Identifier: Apache-2.0
import math
import time

import pytest
import torch
from fleet import CONTEXT
from resume import BATCH, HERE, STEPS, Run, by_step, killed_and_resumed, rows_of, small

pytest.importorskip("torchtitan")


def test_killed_and_resumed(make_fleet, tmp_path):
    killed_and_resumed(make_fleet, tmp_path, lambda fleet, out: [HERE / "titan_cpu.py", fleet.config, out])


def test_processes_chunks_async(make_fleet, tmp_path):
    """Two processes with FSDP, the loss in four chunks and asynchronous checkpoints, killed in step 4; then one process from the checkpoint on."""
    fleet = small(make_fleet)
    expected = rows_of(fleet)
    command = [HERE / "titan_cpu.py", fleet.config, tmp_path / "out", "chunked", "async"]
    with Run(tmp_path, "two", command, hold=4, world=2) as two:
        two.wait_held(checkpointed=0, released=False)           # said when the next one begins
        end = time.monotonic() + 60
        while not (tmp_path / "out/checkpoint/step-3/.metadata").exists() and time.monotonic() < end:
            time.sleep(0.1)
        two.kill()
    with Run(tmp_path, "one", command) as one:
        one.wait_end()
    assert fleet.wait_end("teacherd-0") == 0

    begun, ended = by_step(two), by_step(one)
    assert list(ended) == list(range(3, STEPS))
    for step in range(STEPS):
        calls = (begun if step < 3 else ended)[step]
        rows = [seq for seqs, _ in calls for seq in seqs]
        assert sorted(rows) == sorted(4 * expected[step])       # each row in each chunk
    loss = [sum(loss for _, loss in steps[3]) / (BATCH * CONTEXT) for steps in (begun, ended)]
    assert loss[0] == pytest.approx(loss[1], abs=1e-5)          # the step after the checkpoint, in two processes and in one


def test_refused(make_fleet):
    from saltfleet import SaltConfigError
    from saltfleet.torchtitan import SaltDataLoader, SaltLoss, SaltTrainer
    from torchtitan.config import ParallelismConfig, TrainingConfig

    fleet = make_fleet()
    for place, options in (("tensor_parallel_degree: expected 1 .*, found 2", {"parallelism": ParallelismConfig(tensor_parallel_degree=2)}),
                           ("spmd_backend: expected .*, found full_dtensor", {"parallelism": ParallelismConfig(spmd_backend="full_dtensor")}),
                           ("disable_cuda_graphs: expected True .*, found False", {"training": TrainingConfig(disable_cuda_graphs=False)})):
        with pytest.raises(SaltConfigError, match=place):
            SaltTrainer.Config(**options).build()
    for place, options in ((f"seq_len: expected {CONTEXT} .*, found 64", {"seq_len": 64}),
                           ("local_batch_size: expected a divisor of the 8 rows .*, found 3", {"local_batch_size": 3}),
                           ("rank: .*, found 1", {"dp_rank": 1})):
        with pytest.raises(SaltConfigError, match=place):
            SaltDataLoader.Config(fleet=str(fleet.config)).build(
                **{"dp_world_size": 1, "dp_rank": 0, "tokenizer": None, "seq_len": CONTEXT, "local_batch_size": 8, **options})
    logits, labels = torch.zeros(1, 4, 8, requires_grad=True), torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(SaltConfigError, match="expected SaltTrainer.Config"):
        SaltLoss.Config().build()(logits, labels)
    with torch.no_grad():           # a validator's call
        assert SaltLoss.Config().build()(logits.detach(), labels)[0] == pytest.approx(4 * math.log(8))
