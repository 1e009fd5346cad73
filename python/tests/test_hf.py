# SPDX-License-Identifier: Apache-2.0
"""SaltTrainer against a plain loop on the same fleet: losses, gradient accumulation, checkpoints, release, resuming in both phases."""
from __future__ import annotations

import pytest
import torch
import transformers
from transformers import TrainerCallback, TrainingArguments

import fleet as fleets
from saltfleet import SaltConfigError, SaltDataset, salt_loss
from saltfleet.hf import SaltCallback, SaltTrainer

STEPS, SWITCH, ROWS = 12, 6, 8


@pytest.fixture(scope="module")
def student(tmp_path_factory):      # type: ignore[no-untyped-def]
    return fleets.make_model(tmp_path_factory.mktemp("model") / "student", 3, "--family", "gpt2")


class Seen(TrainerCallback):
    """Sequences and losses of every step."""

    def __init__(self):
        self.losses, self.seqs, self.stop_at = {}, {}, None

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.stop_at:
            control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.losses[state.global_step] = logs["loss"]


class Watched(SaltTrainer):
    def compute_loss(self, model, inputs, *args, **kwargs):
        if model.training:
            self.seen.seqs.setdefault(inputs["step"], []).extend(inputs["seqs"].tolist())
        return super().compute_loss(model, inputs, *args, **kwargs)


def make_trainer(fleet, student, out, parts=1, callback=SaltCallback, stop_at=None, **options):
    model = transformers.AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    args = TrainingArguments(str(out), per_device_train_batch_size=ROWS // parts, gradient_accumulation_steps=parts, learning_rate=3e-3,
                             weight_decay=0.1, adam_beta2=0.95, lr_scheduler_type="constant", use_cpu=True, report_to="none",
                             disable_tqdm=True, logging_steps=1, **{"save_strategy": "no", "seed": 1, **options})
    seen = Seen()
    seen.stop_at = stop_at
    trainer = Watched(model, args, config=fleet.config, callbacks=[seen], callback=callback)
    trainer.seen = seen
    return trainer


def reference(fleet, student):
    """The plain loop: {step after it: loss}, {step: sequences}, the model."""
    model = transformers.AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32).train()
    decay = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=3e-3, betas=(0.9, 0.95))
    losses, seqs = {}, {}
    for batch in SaltDataset(fleet.config, timeout_s=60):
        loss = salt_loss(model(batch.input_ids, **batch.forward_kwargs()).logits, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses[batch.step + 1], seqs[batch.step] = loss.item(), batch.seqs.tolist()
    return losses, seqs, model


@pytest.mark.parametrize("parts, isolate", [(1, False), (4, False), (4, True)])
def test_same_losses(parts, isolate, make_fleet, student, tmp_path):
    """The losses of a plain loop, and its weights at the end, with 1 and with 4 accumulation steps. trainer.batch is 8, so a loss that is
    not divided by 4, or twice, or shifted once more, is another one. With isolated documents the micro-batches have different numbers of targets."""
    fleet = make_fleet(corpus={"isolate_documents": isolate}).up()
    want, seqs, model = reference(fleet, student)
    trainer = make_trainer(fleet, student, tmp_path / "out", parts)
    result = trainer.train()
    assert result.global_step == STEPS
    assert trainer.seen.seqs == seqs
    assert trainer.seen.losses.keys() == want.keys()
    for step, loss in want.items():
        assert abs(trainer.seen.losses[step] - loss) < 2e-5, step
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=0, atol=1e-3)
    # An evaluation of another dataset is the mean of its own batch, not divided by the targets of the last step.
    batch = next(iter(SaltDataset(fleet.config, timeout_s=60)))
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(batch.input_ids, **batch.forward_kwargs()).logits
        torch.testing.assert_close(trainer.compute_loss(trainer.model, batch.as_dict()), salt_loss(logits, batch), rtol=1e-4, atol=0)


def test_gradients(make_fleet, student, tmp_path):
    """The gradient of the first step, before clipping, with 1, 2 and 4 accumulation steps."""
    class Stop(Exception):
        pass

    fleet, found = make_fleet().up(), []
    for parts in (1, 2, 4):
        trainer = make_trainer(fleet, student, tmp_path / str(parts), parts, max_grad_norm=0.0)

        class Look(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, model=None, **_):
                found.append({name: p.grad.clone() for name, p in model.named_parameters()})
                raise Stop

        trainer.add_callback(Look())
        with pytest.raises(Stop):
            trainer.train()
        trainer.salt.close()
    for other in found[1:]:
        for name, gradient in found[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-7)
    assert max(g.abs().max() for g in found[0].values()) > 1e-3


def test_release(make_fleet, student, tmp_path):
    """At the switch the callbacks run once each, a checkpoint is on disk, and the teacher is released: teacherd ends by itself."""
    said = []

    class Say(SaltCallback):
        def on_checkpoint(self, step, oldest):
            said.append(("checkpoint", step, oldest, (tmp_path / f"out/checkpoint-{step}/model.safetensors").exists()))
            super().on_checkpoint(step, oldest)

        def on_switch(self, step):
            said.append(("switch", step))
            super().on_switch(step)

    fleet = make_fleet().up()
    trainer = make_trainer(fleet, student, tmp_path / "out", callback=Say, save_strategy="steps", save_steps=4)
    trainer.train()
    assert said == [("checkpoint", 4, 4, True), ("checkpoint", SWITCH, 4, True), ("switch", SWITCH), ("checkpoint", 8, 4, True),
                    ("switch", SWITCH), ("checkpoint", STEPS, 4, True), ("switch", SWITCH)]
    assert fleet.wait_end("teacherd-0") == 0
    view = trainer.salt.view()
    assert view.released and view.checkpointed == 4
    metrics = trainer.evaluate()
    held = list(trainer.salt.heldout(64))
    with torch.no_grad():
        losses = torch.cat([salt_loss(trainer.model(b.input_ids).logits, b, reduction="none") for b in held])
    assert abs(metrics["eval_loss"] - losses.mean().item()) < 1e-5 and 0 <= metrics["eval_accuracy"] < 1


@pytest.mark.parametrize("stop", [4, 9])
def test_resume(stop, make_fleet, student, tmp_path):
    """Stopped in phase one or two and resumed from the checkpoint: the undisturbed losses, no row twice or missing. Phase two needs no
    selectord then."""
    fleet = make_fleet().up()
    want, seqs, _ = reference(fleet, student)
    first = make_trainer(fleet, student, tmp_path / "out", 2, stop_at=stop, save_strategy="steps", save_steps=stop)
    first.train()
    first.salt.close()
    if stop > SWITCH:
        fleet.down()
    second = make_trainer(fleet, student, tmp_path / "out", 2, save_strategy="steps", save_steps=stop)
    if stop > SWITCH:
        second.salt.flush = lambda *_: None     # nobody is there to acknowledge
    second.train(resume_from_checkpoint=True)
    assert sorted(first.seen.losses) == list(range(1, stop + 1)) and sorted(second.seen.losses) == list(range(stop + 1, STEPS + 1))
    for step, loss in {**first.seen.losses, **second.seen.losses}.items():
        assert abs(loss - want[step]) < 2e-5, step
    assert {**first.seen.seqs, **second.seen.seqs} == seqs and not first.seen.seqs.keys() & second.seen.seqs.keys()


def test_margin(make_fleet, student, tmp_path):
    """until_margin: the evaluation decides the switch, which a resumed run knows from its checkpoint."""
    fleet = make_fleet(phase_one={"steps": None, "until_margin": 5.0, "weight": 0.667}, trainer={"eval_every": 4, "eval_sequences": 8}).up()
    options = {"save_strategy": "steps", "save_steps": 100, "eval_strategy": "steps", "eval_steps": 4}
    first = make_trainer(fleet, student, tmp_path / "out", stop_at=5, **options)
    assert first.salt.plan.switch_step is None
    first.train()
    assert first.salt.plan.switch_step == 4 and (tmp_path / "out/checkpoint-4/trainer_state.json").exists()
    assert fleet.wait_end("teacherd-0") == 0
    first.salt.close()
    fleet.down()
    second = make_trainer(fleet, student, tmp_path / "out", **options)
    second.salt.flush = lambda *_: None
    second.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-4"))
    assert second.salt.plan.switch_step == 4 and sorted(second.seen.losses) == list(range(5, STEPS + 1))


def test_refused(fleet, student, tmp_path):
    with pytest.raises(SaltConfigError, match=r"trainer.batch 8 .*found 2 \* 2 \* 1 = 4"):
        SaltTrainer(transformers.AutoModelForCausalLM.from_pretrained(student), TrainingArguments(
            str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2, use_cpu=True, report_to="none"), config=fleet.config)
    with pytest.raises(SaltConfigError, match="at most trainer.steps 12, found 13"):
        make_trainer(fleet, student, tmp_path, max_steps=13)
    with pytest.raises(SaltConfigError, match="dataloader_num_workers: expected 0, found 2"):
        make_trainer(fleet, student, tmp_path, dataloader_num_workers=2)
    with pytest.raises(SaltConfigError, match="expected label_smoothing_factor 0 .*found 0.1 and None"):
        make_trainer(fleet, student, tmp_path, label_smoothing_factor=0.1)
    with pytest.raises(SaltConfigError, match="no compute_loss_func.*found 0.0 and <built-in function max>"):
        SaltTrainer(None, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), config=fleet.config, compute_loss_func=max)
    with pytest.raises(SaltConfigError, match="found neither"):
        SaltTrainer(None, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    with pytest.raises(SaltConfigError, match="micro_batches 4 .*micro_batches 1"):
        SaltTrainer(None, TrainingArguments(str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=4, use_cpu=True,
                                            report_to="none"), train_dataset=SaltDataset(fleet.config))
