# SPDX-License-Identifier: Apache-2.0
"""The study's grid: sizes, recipes, and which cells are run.

First every recipe runs at three learning rates, with seed 1. Then options of phase one are changed one at a time, from SALT, with seed 1. The
claims come last: the best of each kind at its own best learning rate, with seeds 2 to 4, in complete runs of 40 to 100 % of the steps. Each of
them has its own full schedule.
"""
from __future__ import annotations

import dataclasses

VOCABULARY, CONTEXT = 8192, 256
STEPS, BATCH = 800, 16                     # 100 %: 3.3 M tokens
FINAL_SEQUENCES = 1024                     # held-out sequences of a run's last evaluation
EARLY = 0.25                               # the scorer of SALT_DS: the small model after this share of its steps
GROW = ["--noise", "2"]
SHARES = (40, 50, 60, 70, 80, 90, 100)
CHOICE_SEED, CLAIM_SEEDS = 1, (2, 3, 4)

# layers, width, heads; rate: times the learning rates below, of the student
SIZES = {
    "small": {"student": (5, 160, 4), "slm": (3, 80, 2), "rate": 1},
    "large": {"student": (6, 256, 8), "slm": (4, 128, 4), "rate": 0.5},
}

# The small models: share of the student's steps, learning rate and optimizer. slm saw as many tokens as the student will, slm3 three times as many;
# slm_lrX are slm with the student's highest learning rate and twice that, slm_muonX is slm trained with Muon.
SLMS = {
    "slm": (100, 4e-3, "adamw"),
    "slm3": (300, 4e-3, "adamw"),
    "slm_lr0.008": (100, 8e-3, "adamw"),
    "slm_lr0.016": (100, 1.6e-2, "adamw"),
    "slm_muon0.004": (100, 4e-3, "muon"),
    "slm_muon0.008": (100, 8e-3, "muon"),
}

# optimizer: of the student. teacher: the SLM that labels. grow: the SLM that the student starts from. n_kd: share of the steps in phase one.
# batch: a share of BATCH, with as many tokens, so more steps. rates: of a size, the learning rates to try in place of LEARNING_RATES;
# the larger student was best at the highest of the three with salt.
SALT = {"teacher": "slm", "n_kd": 0.4}
RECIPES = {
    "baseline": {},
    "baseline_half": {"batch": 0.5},
    "baseline_quarter": {"batch": 0.25},
    "salt": {**SALT, "rates": {"large": (2e-3, 4e-3, 8e-3, 1.6e-2)}},
    "salt_ds": {**SALT, "select": True},
    "grown": {"grow": "slm"},
    "grown_salt": {**SALT, "grow": "slm"},
    "salt3": {**SALT, "teacher": "slm3"},
    "salt3_ds": {**SALT, "teacher": "slm3", "select": True},
    "rkd": {**SALT, "n_kd": 1.0},
    "muon": {"optimizer": "muon"},
    "muon_salt": {**SALT, "optimizer": "muon", "teacher": "slm_muon0.008"},
    "muon_salt3": {**SALT, "optimizer": "muon", "teacher": "slm3"},
}
LEARNING_RATES = {"adamw": (2e-3, 4e-3, 8e-3), "muon": (4e-3, 8e-3, 1.6e-2), "grown": (1e-3, 2e-3, 4e-3)}

# One change at a time from "salt".
CHANGES = {
    "slm_lr8": {"teacher": "slm_lr0.008"},
    "slm_muon4": {"teacher": "slm_muon0.004"},
    "slm_muon8": {"teacher": "slm_muon0.008"},
    "w033": {"options": {"phase_one.weight": 0.333}},
    "w090": {"options": {"phase_one.weight": 0.9}},
    "tau025": {"options": {"labels.tau": 0.25}},
    "linear": {"options": {"phase_one.handover": "linear"}},
    "n20": {"n_kd": 0.2},
    "n60": {"n_kd": 0.6},
    "confidence": {"options": {"phase_one.token_weight": "teacher_confidence"}},
    "margin": {"options": {"phase_one.token_weight": "margin"}},
    "ds_k10": {"select": True, "options": {"selector.k": 10}},
    "ds_keep025": {"select": True, "options": {"selector.keep_share": 0.25}},
}


def rates(size, recipe):
    """The learning rates that a recipe is tried at; a grown start is tried at smaller ones."""
    kind = "grown" if "grow" in recipe else recipe.get("optimizer", "adamw")
    return [SIZES[size]["rate"] * lr for lr in recipe.get("rates", {}).get(size, LEARNING_RATES[kind])]


@dataclasses.dataclass(frozen=True)
class Cell:
    size: str
    recipe_name: str
    lr: float = 0.0
    seed: int = 1
    percent: int = 100

    def __str__(self):
        if self.is_slm():
            return f"{self.size}/{self.recipe_name}"
        return f"{self.size}/{self.recipe_name}/lr{self.lr:g}/seed{self.seed}/p{self.percent}"

    def is_slm(self):
        return self.recipe_name in SLMS

    def recipe(self):
        if self.is_slm():
            return {}
        base, _, change = self.recipe_name.partition("+")
        return {**RECIPES[base], **(CHANGES[change] if change else {})}

    def recipe_slms(self):
        return sorted({self.recipe()[k] for k in ("teacher", "grow") if k in self.recipe()})

    def batch(self):
        return int(BATCH * self.recipe().get("batch", 1))

    def steps(self):
        whole = STEPS * BATCH // self.batch()
        return whole * (SLMS[self.recipe_name][0] if self.is_slm() else self.percent) // 100

    def early_step(self):
        return int(self.steps() * EARLY)

    def options(self):
        recipe, steps = self.recipe(), self.steps()
        out = {
            "run.seed": self.seed + 100 * self.is_slm(), "corpus.context": CONTEXT, "trainer.steps": steps, "trainer.batch": self.batch(),
            "trainer.micro_batch": max(1, self.batch() // 8), "trainer.lr": SLMS[self.recipe_name][1] if self.is_slm() else self.lr,
            "trainer.warmup": steps // 10, "trainer.eval_every": steps // 20, "trainer.eval_sequences": 128,
            "trainer.checkpoint_every": 100, "trainer.tensorboard": False,
        }
        if self.is_slm():
            out["trainer.keep_steps"] = f"[{self.early_step()}]"
        if self.batch() < 8:
            out["trainer.lanes"] = self.batch()
        optimizer = SLMS[self.recipe_name][2] if self.is_slm() else recipe.get("optimizer", "adamw")
        if optimizer != "adamw":
            out["trainer.optimizer"] = optimizer
        if "teacher" in recipe:
            n_kd = int(steps * recipe["n_kd"])
            out.update({"phase_one.steps": n_kd, "phase_one.weight": 0.667, "deploy.teachers": 1})
            if recipe.get("select"):
                out.update({"selector.mode": "salt_ds", "selector.k": 64, "selector.block": 256, "selector.keep_share": 0.5})
            out.update(recipe.get("options", {}))
            if out.get("phase_one.handover") == "linear":
                out["phase_one.handover_steps"] = n_kd
        return out


def shape(cell):
    return SIZES[cell.size]["slm" if cell.is_slm() else "student"]


def best_rate(study, size, recipe_name):
    """The learning rate with the lowest final loss among those that were tried, or None until all were."""
    base = recipe_name.partition("+")[0]
    tried = rates(size, RECIPES[base])
    losses = [(r["final"]["log_perplexity"], lr) for lr in tried if (r := study.result(Cell(size, base, lr, CHOICE_SEED)))]
    return min(losses)[1] if len(losses) == len(tried) else None


def claims(study, size, base, lr):
    """The recipes of base that are claimed: base, or the change of it with the lowest final loss on the seed of the choice, and those that were
    claimed before a better one was found."""
    names = [base] + [f"{base}+{c}" for c in CHANGES]
    losses = [(r["final"]["log_perplexity"], n) for n in names if (r := study.result(Cell(size, n, lr, CHOICE_SEED)))]
    best = min(losses)[1] if losses else base
    return [n for n in names if n == best or any(study.result(Cell(size, n, lr, s, p)) for s in CLAIM_SEEDS for p in SHARES)]


def cells(study):
    """All cells that are known by now: later ones depend on what the first gave."""
    out = {}
    for size in SIZES:
        for slm in SLMS:
            out[Cell(size, slm)] = None
        for recipe_name, recipe in RECIPES.items():
            for lr in rates(size, recipe):
                out[Cell(size, recipe_name, lr, CHOICE_SEED)] = None
        if lr := best_rate(study, size, "salt"):
            for change in CHANGES:
                out[Cell(size, f"salt+{change}", lr, CHOICE_SEED)] = None
        for seed in CLAIM_SEEDS:
            for recipe_name in ("baseline", "muon"):
                if lr := best_rate(study, size, recipe_name):
                    out[Cell(size, recipe_name, lr, seed)] = None
            for base in ("salt", "salt_ds", "salt3", "grown", "grown_salt", "muon_salt"):
                if lr := best_rate(study, size, base):
                    for name in claims(study, size, base, lr):
                        for percent in SHARES:
                            out[Cell(size, name, lr, seed, percent)] = None
    return list(out)
