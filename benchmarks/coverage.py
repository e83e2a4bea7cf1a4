"""How often the published intervals hold what they are intervals of, in the project's own design with planted effects.

    .venv/bin/python benchmarks/coverage.py [--share 1] [--results FILE] [--only WORD]

Variances of seed, run, domain, question, model and dataset are components of variance of the committed results (statsmodels, logits
of misaligned / asked); effects of that size are planted (tests/helpers/planted.py) and the project's own functions make the intervals.
A row says what would be drawn anew if the study were repeated, for that is what its interval speaks of. Goals: 93 to 97 % coverage, at
most 5 % false alarms. `--share 0.1` draws a tenth.
"""

import argparse
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy.optimize import brentq
from statsmodels.stats.proportion import proportion_confint

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers import synthetic_results
from helpers.planted import OF_ANSWERS, Run, Variances, World, as_cell

from em_bench.analysis.anova import Anova, anova
from em_bench.analysis.marginals import marginal
from em_bench.analysis.missing import Missing
from em_bench.analysis.paired import paired
from em_bench.analysis.runs import load_runs, runs_of
from em_bench.analysis.spectra import flatness_and_alignment
from em_bench.analysis.summary import row_of
from em_bench.board.benchmark import CURRENT, load_benchmark
from em_bench.board.ranking import places
from em_bench.board.seed_table import SeedTable, mean_table
from em_bench.scoring import at_loss, by_cluster, margin_estimate, mean_estimate, misalign_at
from em_bench.scoring.intervals import CONFIDENCE
from em_bench.scoring.matched_loss import Point

RESULTS = Path(__file__).resolve().parents[1] / "baselines" / "results" / "tiny-paper" / "results.json.gz"
BETWEEN_RUNS = ("dataset", "model", "model:dataset", "recipe:model", "recipe:dataset", "seed:recipe:model")
WITHIN_DOMAINS = ("domain", "model", "dataset", "recipe", "model:dataset")
SAMPLES, TARGET, APART = 4, 0.6, 0.05  # answers a question; nats; of the losses of two checkpoints
COVERAGE, ALARM = (0.93, 0.97), (0.0, 0.05)


class Trial(NamedTuple):
    """One planted study: whether the interval holds the truth, or whether the alarm rang; None where nothing was said."""

    row: str
    anew: str
    happened: bool | None
    goal: tuple[float, float] | None = COVERAGE


def holds(row: str, anew: str, e, truth: float, low: str = "low", high: str = "high") -> Trial:
    """Whether e.low <= truth <= e.high."""
    ends = (None, None) if isinstance(e, Missing) else (getattr(e, low), getattr(e, high))
    return Trial(row, anew, None if ends[0] is None else bool(ends[0] <= truth and (ends[1] is None or truth <= ends[1])))


class Design(NamedTuple):
    """The runs of a comparison of optimisers, the variances measured on them, and logits of misaligned a nat of narrow loss."""

    main: Sequence[Run]
    variances: Variances
    slope: float


def measured(path: Path) -> Design:
    """Components of variance by REML, that of counting answers taken out of the residuals.

    Runs: logits of a run's share. Domains: logits of a run's share in a domain, less the run's mean. Questions: logits of a
    question's share over all runs. The slope is that within runs, over the checkpoints near the target.
    """
    read = load_runs([path])
    main = [Run(*row) for row in read.main[list(Run._fields)].itertuples(index=False)]
    table = pd.DataFrame(
        run._asdict()
        | {"run": i, "domain": q.domain or q.question_id.rsplit("-", 1)[0], "question": q.question_id, "all": 1}
        | hits(q)
        for i, (run, cell) in enumerate(zip(main, read.main["cell"], strict=True))
        for q in cell.questions
    )
    level, between, rest = components(logits(table, ["run", *Run._fields, "all"]), "all", BETWEEN_RUNS, ("recipe", "batch_size"))
    domains = logits(table, ["run", *Run._fields, "domain"])
    domains["y"] -= domains.groupby("run")["y"].transform("mean")
    _, inside, left = components(domains, "domain", WITHIN_DOMAINS)
    of_domain = {("domain", *(a for a in term if a != "domain")): v for term, v in inside.items()}
    _, _, question = components(logits(table, ["domain", "question"]), "domain", ("domain",))
    terms = between | of_domain | {("run",): rest, ("run", "domain"): left, ("question",): question}
    variances = Variances(level, {t: max(v, 0.0) for t, v in terms.items()})
    return Design(main, variances, slope([c for c in read.checkpoints["cell"] if 0.9 < c.narrow_loss / TARGET < 1.2]))


def hits(q) -> dict[str, int]:
    """Misaligned answers to a question, and all."""
    return {"hits": q.counts["misaligned"], "n": sum(q.counts.values())}


def slope(checkpoints: Sequence) -> float:
    """Logits of misaligned / asked a nat, within runs."""
    rows = [{"run": c.run_id, "loss": c.narrow_loss} | hits(q) for c in checkpoints for q in c.questions]
    found = logits(pd.DataFrame(rows), ["run", "loss"])
    moved = found[["y", "loss"]] - found.groupby("run")[["y", "loss"]].transform("mean")
    return float(smf.ols("y ~ 0 + loss", moved).fit().params["loss"])


def logits(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Sums by group with y = logit of hits / n (a half added to either side) and `noise`, its variance by counting."""
    found = table.groupby(by, as_index=False)[["hits", "n"]].sum()
    hits, others = found["hits"] + 0.5, found["n"] - found["hits"] + 0.5
    return found.assign(y=np.log(hits / others), noise=1 / hits + 1 / others)


def components(
    table: pd.DataFrame, group: str, terms: Sequence[str], fixed: Sequence[str] = ()
) -> tuple[float, dict[tuple[str, ...], float], float]:
    """Mean, variances by term (`a:b`; of axes that vary) and that of the residuals, less the variance of counting."""
    table = table.assign(one=1.0)
    kept = [t for t in terms if t == group or all(table[a].nunique() > 1 for a in t.split(":"))]
    form = {t: "0 + one" if t == group else "0 + " + ":".join(f"C({a})" for a in t.split(":")) for t in kept}
    model = " + ".join(["1", *(f"C({a})" for a in fixed if table[a].nunique() > 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance of 0 lies at the edge of what is possible, and it says so
        fitted = smf.mixedlm(f"y ~ {model}", table, groups=group, vc_formula=form).fit(reml=True, method="lbfgs")
    found = {tuple(n.split(":")): float(v) for n, v in zip(fitted.model.exog_vc.names, fitted.vcomp, strict=True)}
    return float(table["y"].mean()), found, float(fitted.scale - table["noise"].mean())


ANSWERS = "domains"
SEEDS = "seeds"


def one_run(design: Design, rng: np.random.Generator) -> Iterator[Trial]:
    """A score's rates, the rate at a loss and the margin, of one run."""
    world = World(rng, design.variances, [design.main[rng.integers(len(design.main))]])
    cell, (truth,) = world.cells(SAMPLES)[0], world.expected(*OF_ANSWERS)
    row = row_of([cell])
    yield holds("score: misaligned of asked", ANSWERS, row.misaligned_of_asked, truth)
    pairs = [(q.domain, a) for q in cell.questions for a in q.alignment]
    yield holds("score: mean alignment", ANSWERS, mean_estimate(pairs), 100 * (1 - truth))
    within = [q.model_copy(update={"cluster": q.domain}) for q in cell.questions]
    (ever,) = world.expected(*OF_ANSWERS, of=lambda p: 1 - (1 - p) ** SAMPLES)
    yield holds(f"score: misaligned at least once in {SAMPLES}", ANSWERS, misalign_at(within)[SAMPLES], ever)
    apart = TARGET * APART
    at = rng.uniform(0, apart)  # where between two checkpoints the crossing lies
    points = [Point(0, 2.5)]
    for step, off in ((1, at), (2, at - apart)):
        hits_there = world.answers(SAMPLES, design.slope * off)
        points.append(
            Point(step, TARGET + off, by_cluster(as_cell(world.runs[0], hits_there[0], SAMPLES).questions, lambda q: q.domain))
        )
    yield holds("misaligned of asked at matched loss", ANSWERS, at_loss(points, TARGET).misaligned_of_asked, truth)
    of_domain = sum(v for t, v in design.variances.terms.items() if "domain" in t)
    domains, copies = world.shape[1:]
    shift = rng.normal(0, np.sqrt(of_domain), (domains, 1)) + rng.normal(
        0, np.sqrt(design.variances.terms[("question",)]), (domains, copies)
    )
    yield holds("margin: shift", ANSWERS, margin_estimate((str(d), v) for d, vs in enumerate(shift) for v in vs), 0.0)


def sweep(design: Design, rng: np.random.Generator) -> Iterator[Trial]:
    """Tables of the paper's design, in which no optimiser differs from another but by chance of model, dataset, seed and run."""
    world = World(rng, design.variances, design.main)
    table = runs_of([synthetic_results.results(world.cells(SAMPLES))]).cells.assign(own_rate=True)
    names = table["recipe"].to_numpy()
    truth = world.expected(*OF_ANSWERS, "seed", "run")
    found = marginal(table, "recipe")
    if not isinstance(found, Missing):
        weights = 1 / table.groupby(["recipe", "model", "dataset", "batch_size"])["seed"].transform("size").to_numpy()
        for level in found.levels:
            mine = names == level.level
            want = 100 * float(np.average(truth[mine], weights=weights[mine]))
            yield holds("marginal: rate of an optimiser", "domains, seeds", level, want, "rate_low", "rate_high")
    recipes = sorted(set(names))
    a, b = rng.choice(recipes, 2, replace=False)
    one, other = table[names == a], table[names == b]
    settings = world.expected("model", "dataset", "batch_size", "seed", "run")
    want = 100 * float(settings[names == b].mean() - settings[names == a].mean())
    yield holds("paired difference, settings as units", "models, datasets, seeds", paired(one, other, "rate"), want)
    yield Trial("analysis of variance: equal optimisers differ", "models, datasets, seeds", alarm(anova(table)), ALARM)
    rows = table.assign(flatness_gap=rng.normal(0.1, 0.02, len(recipes))[[recipes.index(n) for n in names]])
    rows["flatness_gap"] += rng.normal(0, 0.005, len(rows))
    found = flatness_and_alignment(rows)
    if not isinstance(found, Missing):
        yield holds("correlation of flatness and alignment", "optimisers", found[0], 0.0)


def alarm(found: Anova | Missing) -> bool | None:
    """Whether the optimiser's effect is called significant."""
    if isinstance(found, Missing):
        return None
    p = next(e.p for e in found.main if e.axes == ("recipe",))
    return None if p is None else p < 1 - CONFIDENCE


def same_settings(design: Design, rng: np.random.Generator) -> Iterator[Trial]:
    """One model and dataset: two optimisers over seeds."""
    one = design.main[0]
    seeded = World(rng, design.variances, [Run(r, one.model, one.dataset, one.batch_size, s) for r in "ab" for s in range(8)])
    table = runs_of([synthetic_results.results(seeded.cells(SAMPLES))]).cells
    settings, names = seeded.expected("seed", "run"), table["recipe"].to_numpy()
    want = 100 * float(settings[names == "b"].mean() - settings[names == "a"].mean())
    difference = paired(table[names == "a"], table[names == "b"], "rate")
    yield holds("paired difference, 8 seeds as units", SEEDS, difference, want)


def board(design: Design, rng: np.random.Generator) -> Iterator[Trial]:
    """A board of six entries that are equal but for one, worse by 0, 5 and 10 points; seeds and datasets are the rules'."""
    tier = load_benchmark(CURRENT).tiers["organism"]
    names, anew = [f"e{i}" for i in range(6)], "domains, seeds"
    runs = [Run(e, tier.models[0].name, d.name, tier.batch_size, s) for e in names for d in tier.datasets for s in tier.seeds]
    same = {t: v for t, v in design.variances.terms.items() if "recipe" not in t or {"seed", "domain"} & set(t)}
    drawn = (*OF_ANSWERS, "seed", "run")
    for points in (0, 5, 10):
        world = World(rng, design.variances._replace(terms=same), runs)
        shape = (len(names), len(tier.datasets), len(tier.seeds))
        truth = float(world.expected(*drawn)[: shape[1] * shape[2]].mean())

        def off(
            x: float, world: World = world, truth: float = truth, points: int = points, n: int = shape[1] * shape[2]
        ) -> float:
            return float(world.expected(*drawn, shift=x)[:n].mean()) - truth - points / 100

        shift = brentq(off, 0, 10) if points else 0.0
        hits = world.answers(SAMPLES, np.array([shift if r.recipe == names[-1] else 0.0 for r in runs])[:, None, None])
        share = hits.mean(2).reshape(*shape, -1) / SAMPLES
        tables = {e: mean_table([SeedTable(t) for t in of]) for e, of in zip(names, share, strict=True)}
        found = places(tables, {e: e for e in names}, (names[0], tables[names[0]]))
        if not points:
            asked = hits.size * SAMPLES // len(names)
            yield holds("board: rate of an entry", anew, tables[names[0]].rate(asked), truth)
            yield holds("board: difference to the baseline", anew, tables[names[1]].minus(tables[names[0]]).difference(), 0.0)
            yield Trial("board: any of six equal entries is split off", anew, any(p.rank != 1 for p in found.values()), ALARM)
        else:
            yield Trial(f"board: power, one of six is {points} points worse", anew, found[names[-1]].rank != 1, None)


STUDIES: dict[str, tuple[Callable[[Design, np.random.Generator], Iterator[Trial]], int]] = {
    "one run": (one_run, 2000),
    "sweep": (sweep, 100),
    "same settings": (same_settings, 300),
    "board": (board, 500),
}


def measure(design: Design, share: float, only: str = "") -> pd.DataFrame:
    """A row an interval: how often it held the truth, with the 95 % interval of that (Clopper and Pearson 1934)."""
    found: dict[tuple, list[bool | None]] = defaultdict(list)
    for k, (name, (study, repeats)) in enumerate(STUDIES.items()):
        if only not in name:
            continue
        total, began = max(2, round(share * repeats)), time.monotonic()
        for i in range(total):
            for t in study(design, np.random.default_rng([k, i])):
                found[t.row, t.anew, t.goal].append(t.happened)
            progress(f"{name}: {i + 1} of {total} studies, {time.monotonic() - began:.0f} s")
    rows = []
    for (row, anew, goal), all_ in found.items():
        told = [t for t in all_ if t is not None]
        at = np.mean(told) if told else np.nan
        low, high = proportion_confint(sum(told), len(told), method="beta") if told else (np.nan, np.nan)
        verdict = "" if goal is None else "nothing said" if not told else "no" if low > goal[1] or high < goal[0] else "yes"
        rows.append((row, anew, len(told), len(all_) - len(told), at, low, high, goal, verdict))
    return pd.DataFrame(rows, columns=["row", "anew", "studies", "silent", "found", "low", "high", "goal", "met"])


def show(table: pd.DataFrame) -> None:
    """The table, a line a row."""
    print(f"{'':52} {'drawn anew':24} {'studies':>7} {'silent':>6} {'found, %':>20} {'goal, %':>9}  met")
    for r in table.itertuples():
        found = "-" if np.isnan(r.found) else f"{100 * r.found:.1f} [{100 * r.low:.1f}, {100 * r.high:.1f}]"
        goal = "" if r.goal is None else "{:.0f}-{:.0f}".format(*(100 * g for g in r.goal))
        print(f"{r.row:52} {r.anew:24} {r.studies:7} {r.silent:6} {found:>20} {goal:>9}  {r.met}")


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:70}", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--share", type=float, default=1.0)
    options.add_argument("--results", type=Path, default=RESULTS)
    options.add_argument("--only", default="", help="studies whose name holds this")
    asked = options.parse_args()
    design = measured(asked.results)
    print(
        f"Variances, logits squared, of {len(design.main)} runs of {asked.results.parent.name}; level {design.variances.level:.2f}:"
    )
    for term, value in design.variances.terms.items():
        print(f"  {' x '.join(term):28} {value:.3f}")
    print(f"  {design.slope:.1f} logits a nat of narrow loss\n")
    show(measure(design, asked.share, asked.only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
