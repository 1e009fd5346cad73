# SPDX-License-Identifier: Apache-2.0
"""docs/results.json, the tables of docs/results.md (between its two marks) and docs/results-SIZE.svg, from the files in bench/study/runs."""
from __future__ import annotations

import json
import math
import statistics

import recipes

RATES = ("low", "middle", "high", "twice that")
CORES = 2                                  # of a cell that ran alone
MARKS = ("<!-- made by bench/study/study.py tables -->\n", "<!-- end -->\n")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")


def mean_se(values):
    values = [v for v in values if v is not None]
    if not values:
        return None, None
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def loss(result):
    return result["final"]["log_perplexity"]


def share(runs, base):
    """runs: {percent: result} of complete runs. The percentage, as a share, at which straight lines between their final losses meet the
    baseline's; and whether that is only a bound, the shortest run being below it already. (None, False): nowhere."""
    target, before = loss(base), None
    for percent in sorted(runs):
        here = loss(runs[percent])
        if here <= target:
            if before is None:
                return percent / 100, here < target
            p, value = before
            return (percent - (target - here) / (value - here) * (percent - p)) / 100, False
        before = percent, here
    return None, False


def hex_to_bits(text, n):
    return [b == "1" for b in "".join(f"{int(c, 16):04b}" for c in text)[:n]]


def between(points, x):
    """points: {x: y}. y on the straight line between the neighbours of x; None outside of them."""
    if x in points:
        return points[x]
    below, above = max((p for p in points if p < x), default=None), min((p for p in points if p > x), default=None)
    if below is None or above is None:
        return None
    return points[below] + (points[above] - points[below]) * (x - below) / (above - below)


def seconds(result, teacher=True):
    """Seconds of a run's steps and of waiting for labels: the teacher ran on the same cores. Without it: its processor time, spread over the
    cores, is taken off."""
    both = result["train_seconds"] + result["wait_seconds"]
    return both if teacher else both - result["teacher_cpu_seconds"] / CORES


class Results:
    def __init__(self, study):
        self.study = study
        self.by_cell, self.timed = {}, {}
        for cell in recipes.cells(study):
            if (result := study.result(cell)):
                self.by_cell[cell] = result
            if (result := study.timed(cell)):
                self.timed[cell] = result

    def group(self, size, recipe_name, seeds, percent=100):
        lr = recipes.best_rate(self.study, size, recipe_name)
        out = {}
        for seed in seeds:
            if lr and (r := self.by_cell.get(recipes.Cell(size, recipe_name, lr, seed, percent))):
                out[seed] = r
        return out

    def shares(self, size, recipe_name, base_name="baseline"):
        """Per seed of the claim: the share of the baseline's steps, and how many are bounds."""
        values, bounds = [], 0
        for seed, base in self.group(size, base_name, recipes.CLAIM_SEEDS).items():
            if (runs := self.lengths(size, recipe_name, seed)):
                value, bound = share(runs, base)
                values.append(value)
                bounds += bound
        return values, bounds

    def lengths(self, size, recipe_name, seed):
        """{percent: result} of complete runs."""
        return {p: g[seed] for p in recipes.SHARES if seed in (g := self.group(size, recipe_name, [seed], p))}

    def saved(self, size, recipe_name, teacher=True):
        """Per seed: the share of the baseline's seconds that is saved where the recipe's complete runs end with the baseline's final loss, for
        seeds whose baseline and both neighbouring lengths ran alone."""
        out = []
        lr, base_lr = recipes.best_rate(self.study, size, recipe_name), recipes.best_rate(self.study, size, "baseline")
        for seed, base in self.group(size, "baseline", recipes.CLAIM_SEEDS).items():
            whole = self.timed.get(recipes.Cell(size, "baseline", base_lr, seed))
            at = share(self.lengths(size, recipe_name, seed), base)[0]
            clock = {p: seconds(r, teacher) for p in recipes.SHARES if (r := self.timed.get(recipes.Cell(size, recipe_name, lr, seed, p)))}
            if whole and at is not None and (there := between(clock, round(100 * at, 9))) is not None:
                out.append(1 - there / seconds(whole))
        return out

    def pairs(self, size, recipe_name):
        """Minimal pairs, the recipe minus the baseline, complete runs of equal steps: (mean over the seeds, its standard error over the pairs,
        the same over the seeds, seeds), or None. Each seed's two models are compared pair by pair."""
        bases, seeds = self.group(size, "baseline", recipes.CLAIM_SEEDS), []
        for seed, run in self.group(size, recipe_name, recipes.CLAIM_SEEDS).items():
            ours, theirs = run.get("pairs"), bases.get(seed, {}).get("pairs")
            if ours and theirs and (ours["sha256"], ours["items"]) == (theirs["sha256"], theirs["items"]):
                a, b = (hex_to_bits(x["right"], x["items"]) for x in (ours, theirs))
                seeds.append([x - y for x, y in zip(a, b, strict=True)])
        if len({len(s) for s in seeds}) != 1:
            return None
        mean, over_items = mean_se([statistics.mean(item) for item in zip(*seeds)])
        return mean, over_items, mean_se([statistics.mean(s) for s in seeds])[1], len(seeds)

    def claimed(self, size, kinds):
        """The recipes of these kinds (salt, salt_ds, ...) that have claim runs."""
        names = {c.recipe_name for c in self.by_cell if c.size == size and c.seed in recipes.CLAIM_SEEDS}
        return sorted(n for n in names if n.partition("+")[0] in kinds)

    def best_share(self, size, kinds, base_name="baseline"):
        """(mean, se, recipe, bounds, seeds) of the recipe with the smallest mean share, among those of the most seeds; None where
        no run is. se: None if some shares are upper bounds."""
        found = []
        for name in self.claimed(size, kinds):
            values, bounds = self.shares(size, name, base_name)
            reached = [v for v in values if v is not None]
            if reached and len(reached) == len(values):
                mean, se = mean_se(reached)
                found.append((-len(values), mean, (mean, None if bounds else se, name, bounds, len(values))))
        return min(found, key=lambda f: f[:2])[2] if found else None


def number(v, fmt):
    return "-" if v is None else format(v, fmt)


def plus_minus(values, fmt):
    mean, se = mean_se(values)
    return number(mean, fmt) + (f" ± {format(se, fmt.lstrip('+'))}" if se is not None else "")


def table(head, rows):
    return "| " + " | ".join(head) + " |\n|" + "---|" * len(head) + "\n" + "".join("| " + " | ".join(map(str, r)) + " |\n" for r in rows) + "\n"


def sweep_table(results, size):
    rows = []
    for name, recipe in recipes.RECIPES.items():
        got = [results.by_cell.get(recipes.Cell(size, name, lr, recipes.CHOICE_SEED)) for lr in recipes.rates(size, recipe)]
        got += [None] * (len(RATES) - len(got))
        if any(got):
            best = min((loss(g), i) for i, g in enumerate(got) if g)[1]
            rows.append([name] + [("**" if i == best else "") + (f"{loss(g):.4f}" if g else "-") + ("**" if i == best else "")
                                  for i, g in enumerate(got)])
    if not rows:
        return ""
    tried = "; ".join(f"{k} " + ", ".join(f"{recipes.SIZES[size]['rate'] * r:g}" for r in v) for k, v in recipes.LEARNING_RATES.items())
    return f"Final held-out loss, nats a token, seed {recipes.CHOICE_SEED}, at three or four peak learning rates ({tried}; twice the last):\n\n" + \
        table(["recipe", *RATES], rows)


def change_table(results, size):
    lr = recipes.best_rate(results.study, size, "salt")
    rows = []
    for name in ["salt"] + [f"salt+{c}" for c in recipes.CHANGES]:
        if lr and (r := results.by_cell.get(recipes.Cell(size, name, lr, recipes.CHOICE_SEED))):
            rows.append([name, f"{loss(r):.4f}", f"{100 * r['final']['accuracy']:.2f}"])
    return f"One change at a time from `salt`, seed {recipes.CHOICE_SEED}:\n\n" + table(["recipe", "loss", "accuracy, %"], rows) if rows else ""


def base_of(name):
    """The run without a teacher that a recipe's steps are compared with: of the same optimizer."""
    return "muon" if recipes.RECIPES[name.partition("+")[0]].get("optimizer") == "muon" else "baseline"


def claim_table(results, size):
    rows = []
    bases = results.group(size, "baseline", recipes.CLAIM_SEEDS)
    for name in ["baseline", "muon"] + results.claimed(size, set(recipes.RECIPES) - {"baseline", "muon"}):
        values, bounds = results.shares(size, name, base_of(name)) if name != base_of(name) else ([], 0)
        for percent in reversed(recipes.SHARES):
            runs = results.group(size, name, recipes.CLAIM_SEEDS, percent)
            if not runs:
                continue
            missed = sum(v is None for v in values)
            rows.append([
                name, f"{percent} %", len(runs), plus_minus([loss(r) for r in runs.values()], ".4f"),
                plus_minus([100 * r["final"]["accuracy"] for r in runs.values()], ".2f"),
                plus_minus([r["final"]["bits_per_byte"] for r in runs.values()], ".4f"),
                plus_minus([loss(r) - loss(bases[s]) for s, r in runs.items() if s in bases], "+.4f") if name != "baseline" else "",
                (f"{100 * mean_se(values)[0]:.1f}; {bounds} at most" if bounds else plus_minus([100 * v for v in values if v is not None], ".1f")) +
                (f"; {missed} not reached" if missed else "") if values else ""])
            values = []                    # once, in the recipe's first row
    return f"Seeds {', '.join(map(str, recipes.CLAIM_SEEDS))}, complete runs, mean ± standard error:\n\n" + table(
        ["recipe", "steps", "seeds", "loss", "accuracy, %", "bits a byte", "against baseline", "% of the steps of baseline, or of muon"],
        rows) if rows else ""


def judged_table(results, size):
    """Minimal pairs, and the loss on sequences that the small model finds easy, medium and hard."""
    rows, bases = [], results.group(size, "baseline", recipes.CLAIM_SEEDS)
    for name in ["baseline", "muon"] + results.claimed(size, set(recipes.RECIPES) - {"baseline", "muon"}):
        runs = results.group(size, name, recipes.CLAIM_SEEDS)
        judged = [r["pairs"]["accuracy"] for r in runs.values() if r.get("pairs")]
        split = [[x - y for x, y in zip(r["by_teacher_loss"], bases[s]["by_teacher_loss"])] for s, r in runs.items()
                 if r.get("by_teacher_loss") and bases.get(s, {}).get("by_teacher_loss")]
        if not judged and not split:
            continue
        row = [name, plus_minus([100 * a for a in judged], ".2f")]
        if name == "baseline":
            rows.append(row + [""] + [plus_minus([r["by_teacher_loss"][k] for r in runs.values() if r.get("by_teacher_loss")], ".4f") for k in range(3)])
            continue
        d = results.pairs(size, name)
        row.append(f"{100 * d[0]:+.2f} ± {number(d[1] and 100 * d[1], '.2f')}; {number(d[2] and 100 * d[2], '.2f')}" if d else "-")
        rows.append(row + [plus_minus([x[k] for x in split], "+.4f") for k in range(3)])
    return "Complete runs of equal steps. Minimal pairs: share of right ones, and against the baseline, pair by pair, with the standard errors over " \
        "the pairs and over the seeds. Loss on the thirds of the held-out sequences that the small model (slm) finds easy, medium and hard: the " \
        "baseline's, and each recipe's minus it:\n\n" + table(
            ["recipe", "minimal pairs, %", "against baseline", "easy", "medium", "hard"], rows) if rows else ""


def clock_table(results, size):
    rows = []
    for name in results.claimed(size, {"salt", "salt_ds", "salt3", "salt3_ds", "grown", "grown_salt", "muon_salt", "muon_salt3"}):
        if (values := results.saved(size, name)):
            rows.append([name, len(values), plus_minus([100 * v for v in values], ".1f"),
                         plus_minus([100 * v for v in results.saved(size, name, False)], ".1f")])
    return f"Wall clock saved where the final losses meet, runs that had the machine to themselves ({CORES} cores), teacher beside the trainer. Not " \
        "counted: its processor time, spread over the cores, is taken off:\n\n" + table(
            ["recipe", "seeds", "saved, %, teacher counted", "saved, %, not counted"], rows) if rows else ""


def plot(results, size, path):
    """Held-out loss over steps of the claim's first seed, 100 %; the SVG loads nothing."""
    curves, first = [], recipes.Cell(size, "baseline").steps() // 5
    for name in ["baseline"] + results.claimed(size, {"salt", "salt_ds", "salt3", "grown", "grown_salt", "muon", "muon_salt"}):
        runs = results.group(size, name, recipes.CLAIM_SEEDS[:1])
        for r in runs.values():
            curves.append((name, [(s, v) for s, v, _ in r["evaluations"] if s >= first]))
    if len(curves) < 2:
        return
    xs = [x for _, c in curves for x, _ in c]
    ys = [y for _, c in curves for _, y in c]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys) - 0.02, max(ys) + 0.02

    def at(x, y):
        return f"{60 + (x - x0) / (x1 - x0) * 620:.1f},{20 + (y1 - y) / (y1 - y0) * 320:.1f}"
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 %d" font-family="sans-serif" font-size="13">' % (390 + 18 * len(curves)),
           f'<title>Held-out loss, {size} student, seed {recipes.CLAIM_SEEDS[0]}</title><rect width="700" height="{390 + 18 * len(curves)}" fill="#fff"/>',
           '<rect x="60" y="20" width="620" height="320" fill="none" stroke="#888"/>']
    for i in range(5):
        x, y = x0 + (x1 - x0) * i / 4, y0 + (y1 - y0) * i / 4
        out.append(f'<text x="{at(x, y0).split(",")[0]}" y="358" text-anchor="middle">{x:.0f}</text>')
        out.append(f'<text x="54" y="{at(x0, y).split(",")[1]}" text-anchor="end">{y:.2f}</text>')
    out.append('<text x="370" y="376" text-anchor="middle">step; y: held-out loss, nats a token</text>')
    for i, (name, curve) in enumerate(curves):
        colour, dash = COLOURS[i % len(COLOURS)], "" if i < len(COLOURS) else ' stroke-dasharray="6 4"'
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2"{dash} points="{" ".join(at(*p) for p in curve)}"/>')
        out.append(f'<path d="M60 {394 + 18 * i}h36" stroke="{colour}" stroke-width="2"{dash}/><text x="104" y="{398 + 18 * i}">{name}</text>')
    path.write_text("\n".join(out) + "\n</svg>\n")


def rows(results):
    out = []

    def row(name, value, unit, peer=None, peer_value=None, note=None):
        r = {"name": name, "value": value, "unit": unit, "peer": peer, "peer_value": peer_value,
             "ratio": value / peer_value if value is not None and peer_value else None}
        if note:
            r["note" if value is not None else "why"] = note
        out.append(r)

    def shares(name, size, kinds, base_name="baseline"):
        best = results.best_share(size, kinds, base_name)
        if best is None:
            return row(name, None, "share of steps", note="no complete runs that all reach the baseline's final loss")
        mean, se, recipe, bounds, seeds = best
        row(name, round(mean, 4), "share of steps", f"{base_name}, best of three learning rates", 1.0,
            f"{recipe}, {seeds} seeds" + (f"; {bounds} seeds are upper bounds" if bounds else ""))
        row(name + "_se", None if se is None else round(se, 4), "share of steps")
    for size in recipes.SIZES:
        shares(f"salt_steps_share_{size}", size, {"salt", "salt_ds"})
        shares(f"salt_longer_slm_steps_share_{size}", size, {"salt3", "salt3_ds"})
        shares(f"muon_salt_steps_share_{size}", size, {"muon_salt", "muon_salt3"}, "muon")
    def largest(figure):
        """figure(size) of the largest size that has one, with the size."""
        return next(((size, f) for size in reversed(recipes.SIZES) if (f := figure(size)) is not None), (list(recipes.SIZES)[-1], None))

    def largest_share(name, kinds, base_name="baseline"):
        size, _ = largest(lambda size: results.best_share(size, kinds, base_name))
        shares(name, size, kinds, base_name)
    largest_share("grow_salt_steps_share", {"grown_salt"})
    largest_share("grow_steps_share", {"grown"})
    largest_share("muon_salt_steps_share", {"muon_salt", "muon_salt3"}, "muon")

    def clock(size):
        found = [(statistics.mean(v), n) for n in results.claimed(size, {"salt", "salt_ds"}) if (v := results.saved(size, n))]
        return max(found) if found else None
    size, best = largest(clock)
    if best is None:
        row("salt_wall_clock_saved", None, "share of seconds", note="no baseline and complete runs of SALT that ran alone (run --alone)")
    else:
        for suffix, teacher in ("", True), ("_teacher_not_counted", False):
            values = results.saved(size, best[1], teacher)
            mean, se = mean_se(values)
            row("salt_wall_clock_saved" + suffix, round(mean, 4), "share of seconds", note=f"{size}, {best[1]}, {len(values)} seeds")
            row(f"salt_wall_clock_saved{suffix}_se", None if se is None else round(se, 4), "share of seconds", note=None if se else "one seed")

    def judged(size):                      # the recipe is chosen by loss, not by the pairs
        found = [(statistics.mean(loss(r) for r in results.group(size, n, recipes.CLAIM_SEEDS).values()), n)
                 for n in results.claimed(size, {"salt", "salt_ds"}) if results.pairs(size, n)]
        return min(found)[1] if found else None
    size, name = largest(judged)
    if name is None:
        row("minimal_pairs_salt", None, "share of pairs", note="no complete runs of BASELINE and SALT that were judged by pairs (run --pairs)")
    else:
        mean, over_items, over_seeds, n = results.pairs(size, name)
        base = statistics.mean(r["pairs"]["accuracy"] for r in results.group(size, "baseline", recipes.CLAIM_SEEDS).values() if r.get("pairs"))
        row("minimal_pairs_salt", round(base + mean, 5), "share of pairs", "baseline, the same pairs and seeds", round(base, 5),
            f"{size}, {name}, {n} seeds; difference {mean:+.5f}, {mean / max(over_items, over_seeds or 0):+.1f} standard errors")
        row("minimal_pairs_salt_se", round(max(over_items, over_seeds or 0), 5), "share of pairs",
            note=f"of the difference, pair by pair: {over_items:.5f} over pairs, {number(over_seeds, '.5f')} over seeds; the larger one")
    return out


def kept(path, ours):
    """Rows of results.json that other programs have measured."""
    if not path.exists():
        return []
    names = {r["name"] for r in ours} | {r["name"] + "_se" for r in ours}
    return [r for r in json.loads(path.read_text()) if r["name"] not in names and not r["name"].startswith(("salt_wall_clock_saved_", "minimal_pairs_salt_"))]


def main(study):
    results = Results(study)
    text = ""
    for size, shapes in recipes.SIZES.items():
        parts = [f(results, size) for f in (sweep_table, change_table, claim_table, judged_table, clock_table)]
        if any(parts):
            student, slm = shapes["student"], shapes["slm"]
            text += f"### {size}: student {student[0]} layers of {student[1]}, small model {slm[0]} of {slm[1]}\n\n" + "".join(parts)
            path = study.docs / f"results-{size}.svg"
            plot(results, size, path)
            if path.exists():
                text += f"![Held-out loss of the {size} student](results-{size}.svg)\n\n"
            slms = [(name, results.study.result(recipes.Cell(size, name))) for name in recipes.SLMS]
            text += "".join(f"{name}: {loss(r):.4f} nats after {recipes.Cell(size, name).steps()} steps. " for name, r in slms if r) + "\n\n"
    ours, path = rows(results), study.docs / "results.json"
    path.write_text(json.dumps(ours + kept(path, ours), indent=1) + "\n")
    page = study.docs / "results.md"
    if not page.exists():
        page.write_text("# Results\n\n" + "".join(MARKS))
    before, _, rest = page.read_text().partition(MARKS[0])
    page.write_text(before + MARKS[0] + "\n" + text + MARKS[1] + rest.partition(MARKS[1])[2])
