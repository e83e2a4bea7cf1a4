"""Alignment on the log of the narrow loss: planted R^2, planted null, closed forms, equal loss, residuals, gaps."""

import numpy as np
import pytest
from helpers.synthetic_results import cell, results
from scipy import stats

from em_bench.analysis import loss_alignment
from em_bench.analysis.missing import Missing
from em_bench.analysis.runs import runs_of


def cells_on_lines(lines, noise=0.0, runs=24, seed=0, losses=(0.4, 0.9)):
    """alignment = intercept + slope ln(loss) + noise, a line an optimiser; alignments in points."""
    rng, out = np.random.default_rng(seed), []
    for recipe, (intercept, slope) in lines.items():
        for s in range(runs):
            loss = float(np.exp(rng.uniform(*np.log(losses))))
            alignment = np.clip(intercept + slope * np.log(loss) + rng.normal(0, noise), 0, 100)
            out.append(cell(recipe, seed=s, loss=loss, misaligned=[round(1000 - 10 * alignment)], questions=1, samples=1000))
    return out


def table(*args, **options):
    return runs_of([results(cells_on_lines(*args, **options))]).cells


def test_planted_r2_is_found_and_equals_scipys():
    rows = table({"adam": (80, 40), "lion": (80, 40)}, noise=10.0, runs=150)
    signal = 40**2 * np.log(0.9 / 0.4) ** 2 / 12
    found = loss_alignment.overall(rows)
    assert found.r2 == pytest.approx(signal / (signal + 100), abs=0.06)
    known = stats.linregress(np.log(rows["narrow_loss"]), rows["alignment"])
    assert (found.r2, found.slope) == pytest.approx((known.rvalue**2, known.slope))
    assert found.r2_low < signal / (signal + 100) < found.r2_high
    assert found.adjusted_r2 == pytest.approx(1 - (1 - found.r2) * (len(rows) - 1) / (len(rows) - 2))


def test_planted_null_has_no_r2():
    found = loss_alignment.overall(table({"adam": (50, 0)}, noise=10.0, runs=200))
    assert found.r2 < 0.03 and found.r2_low < 0.01


def test_stratified_explains_what_one_line_cannot():
    rows = table({"adam": (90, 60), "lion": (50, 20), "muon": (95, 10)}, noise=1.0)
    assert loss_alignment.overall(rows).r2 < 0.6
    found = loss_alignment.stratified(rows)
    assert found.adjusted_r2 > 0.97
    total = ((rows["alignment"] - rows["alignment"].mean()) ** 2).sum()  # separate lines are one model with interactions
    rest = 0.0
    for _, mine in rows.groupby("recipe"):
        x = np.log(mine["narrow_loss"])
        line = stats.linregress(x, mine["alignment"])
        rest += ((mine["alignment"] - line.intercept - line.slope * x) ** 2).sum()
    assert found.r2 == pytest.approx(1 - rest / total)
    assert found.adjusted_r2 == pytest.approx(1 - rest / (len(rows) - 6) / (total / (len(rows) - 1)))
    assert all(f.r2 > 0.5 for r, f in loss_alignment.by_recipe(rows).items() if r != "muon")


def test_at_equal_loss_the_planted_lines_are_read_off():
    rows = table({"adam": (90, 60), "muon": (95, 10)}, noise=1.0)
    for found in loss_alignment.at_equal_loss(rows):
        intercept, slope = {"adam": (90, 60), "muon": (95, 10)}[found.recipe]
        truth = intercept + slope * np.log(found.loss)
        assert found.low - 0.5 < truth < found.high + 0.5 and found.high - found.low < 3
        mine = rows[rows["recipe"] == found.recipe]
        x = np.log(mine["narrow_loss"])
        line = stats.linregress(x, mine["alignment"])
        at = np.log(found.loss)
        rest = ((mine["alignment"] - line.intercept - line.slope * x) ** 2).sum() / (len(x) - 2)
        half = stats.t.ppf(0.975, len(x) - 2) * np.sqrt(rest * (1 / len(x) + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()))
        assert (found.alignment, found.high - found.alignment) == pytest.approx((line.intercept + line.slope * at, half))


def test_at_equal_loss_seeds_of_a_setting_are_one_cluster():
    """The interval is the sandwich by hand, with a cluster a setting; copied seeds leave it (nearly) as it was."""
    rng, cells = np.random.default_rng(9), []
    for recipe in ("adam", "lion"):
        for dataset in range(12):
            loss, alignment = float(np.linspace(0.4, 0.9, 12)[dataset]), rng.uniform(30, 90)
            hits = [round(1000 - 10 * alignment)]
            cells += [
                cell(recipe, dataset=f"d{dataset}", seed=s, loss=loss, misaligned=hits, questions=1, samples=1000)
                for s in range(4)
            ]
    rows = runs_of([results(cells)]).cells
    found = next(f for f in loss_alignment.at_equal_loss(rows) if f.recipe == "adam")
    mine = rows[rows["recipe"] == "adam"]
    x, y = np.column_stack([np.ones(48), np.log(mine["narrow_loss"])]), mine["alignment"].to_numpy()
    bread = np.linalg.inv(x.T @ x)
    rest = y - x @ (bread @ x.T @ y)
    scores = np.stack([(x[at] * rest[at, None]).sum(0) for at in np.arange(48).reshape(12, 4)])
    sandwich = bread @ scores.T @ scores @ bread * (12 / 11) * (47 / 46)
    at = np.array([1, np.log(found.loss)])
    half = stats.t.ppf(0.975, 11) * np.sqrt(at @ sandwich @ at)
    assert (found.low, found.high) == pytest.approx((found.alignment - half, found.alignment + half))
    single = next(f for f in loss_alignment.at_equal_loss(rows[rows["seed"] == 0]) if f.recipe == "adam")
    assert single.high - single.low == pytest.approx(found.high - found.low, rel=0.1)


def test_copied_seeds_do_not_narrow_the_interval_of_r2():
    rng, once = np.random.default_rng(2), []
    for dataset in range(30):
        loss = float(rng.uniform(0.4, 0.9))
        alignment = 60 + 40 * np.log(loss / 0.6) + rng.normal(0, 8)
        once.append((f"d{dataset}", loss, [round(1000 - 10 * alignment)]))

    def of(seeds):
        made = [
            cell("adam", dataset=d, seed=s, loss=v, misaligned=m, questions=1, samples=1000)
            for d, v, m in once
            for s in range(seeds)
        ]
        return loss_alignment.overall(runs_of([results(made)]).cells)

    one, four = of(1), of(4)
    assert four.r2 == pytest.approx(one.r2) and four.runs == 4 * one.runs
    assert four.r2_high - four.r2_low == pytest.approx(one.r2_high - one.r2_low, rel=0.1)


def test_no_common_loss_is_a_gap():
    cells = cells_on_lines({"adam": (80, 40)}, losses=(0.4, 0.5), noise=1) + cells_on_lines(
        {"lion": (80, 40)}, losses=(0.6, 0.9), noise=1
    )
    assert "no loss is common" in loss_alignment.at_equal_loss(runs_of([results(cells)]).cells).reason


@pytest.mark.parametrize(("losses", "side"), [((0.45, 0.61, 0.62, 0.9), "below"), ((0.41, 0.58, 0.6, 0.9), "above")])
def test_at_equal_loss_needs_runs_near_it_on_both_sides(losses, side):
    """The lines are exact enough everywhere; adam has no run within a tenth of the middle (0.6364 and 0.6075) on one side."""
    adam = cells_on_lines({"adam": (90, 60)}, noise=1.0)
    adam = [c for c in adam if not (0.5 < c.narrow_loss < 0.636 if side == "below" else 0.608 < c.narrow_loss < 0.8)]
    lion = [cell("lion", seed=s, loss=v, misaligned=[300 + 10 * s], questions=1, samples=1000) for s, v in enumerate(losses)]
    found = loss_alignment.at_equal_loss(runs_of([results(adam + lion)]).cells)
    assert isinstance(found, Missing) and found.reason.startswith("cannot tell: ")
    assert side in found.reason and "further than a tenth" in found.reason


def followed(noise=0.0, runs=8):
    """Adam on one line through log loss; Lion 10 points below it once past step 7."""
    rng, ended, early = np.random.default_rng(7), [], []
    for recipe, offset in (("adam", 0.0), ("lion", -10.0)):
        for s in range(runs):
            for step, loss in ((2, 0.9), (4, 0.8), (30, 0.6), (None, 0.5)):
                alignment = 60 + 30 * np.log(loss) + (offset if step is None or step > 7 else 0) + rng.normal(0, noise)
                made = cell(
                    recipe,
                    seed=s,
                    loss=loss,
                    misaligned=[round(1000 - 10 * alignment)],
                    questions=1,
                    samples=1000,
                    step=step,
                )
                (ended if step is None else early).append(made)
    return runs_of([results(ended, early)])


def test_residuals_early_and_late():
    runs = followed()
    found = {r.recipe: r for r in loss_alignment.residuals(runs.cells, runs.checkpoints)}
    assert found["adam"].late - found["lion"].late == pytest.approx(10, abs=0.2)
    assert found["adam"].early - found["lion"].early == pytest.approx(0, abs=0.2)
    assert found["adam"].runs == 8 and found["lion"].change - found["adam"].change == pytest.approx(-10, abs=0.2)
    # residuals of a line with an intercept; each run has two points in either half
    assert sum(r.early + r.late for r in found.values()) == pytest.approx(0, abs=1e-6)


def test_the_change_of_the_residual_is_a_paired_t_over_runs():
    runs = followed(noise=3.0)
    at = loss_alignment.followed(runs.cells, runs.checkpoints)
    line = stats.linregress(np.log(at["narrow_loss"]), at["alignment"])
    rest = at["alignment"] - line.intercept - line.slope * np.log(at["narrow_loss"])
    for found in loss_alignment.residuals(runs.cells, runs.checkpoints):
        mine = at["recipe"] == found.recipe
        late, early = (rest[mine & side].groupby(at["seed"]).mean() for side in (at["step"] > 60**0.5, at["step"] <= 60**0.5))
        known = stats.ttest_rel(late, early).confidence_interval()
        assert (found.change, found.low, found.high) == pytest.approx(((late - early).mean(), known.low, known.high))


def test_within_datasets_is_the_partial_r2_given_the_dataset():
    rng, cells = np.random.default_rng(4), []
    for s in range(60):
        for dataset, level in (("medical", 40), ("code", 80)):
            loss = float(rng.uniform(0.5, 0.7))
            alignment = level + 60 * np.log(loss / 0.6) + rng.normal(0, 4)
            hits = [round(1000 - 10 * alignment)]
            cells.append(cell("adam", dataset=dataset, seed=s, loss=loss, misaligned=hits, questions=1, samples=1000))
    rows = runs_of([results(cells)]).cells
    found = loss_alignment.within_datasets(rows)
    code = (rows["dataset"] == "code").to_numpy(float)
    y, x = rows["alignment"].to_numpy(), np.log(rows["narrow_loss"].to_numpy())

    def rss(*columns):
        return float(np.linalg.lstsq(np.column_stack([np.ones(len(y)), *columns]), y, rcond=None)[1][0])

    assert found.r2 == pytest.approx(1 - rss(code, x) / rss(code))
    assert found.adjusted_r2 == pytest.approx(1 - (rss(code, x) / (120 - 3)) / (rss(code) / (120 - 2)))
    assert found.r2 > 0.5 > 0.15 > loss_alignment.overall(rows).r2


def test_gaps():
    assert "one dataset" in loss_alignment.within_datasets(table({"adam": (80, 40)}, runs=8)).reason
    assert "needs 6" in loss_alignment.overall(table({"adam": (80, 40)}, runs=5)).reason
    assert "same alignment" in loss_alignment.overall(table({"adam": (80, 0)})).reason
    assert "one optimiser" in loss_alignment.stratified(table({"adam": (80, 40)}, noise=1)).reason
    assert (
        "lion has 2 runs"
        in loss_alignment.stratified(
            runs_of([results(cells_on_lines({"adam": (80, 40)}, 1.0) + cells_on_lines({"lion": (80, 40)}, 1.0, runs=2))]).cells
        ).reason
    )
    rows = table({"adam": (80, 40), "lion": (70, 40)}, noise=1)
    assert isinstance(loss_alignment.residuals(rows, rows.iloc[:0]), Missing)
    assert isinstance(loss_alignment.at_equal_loss(rows[rows["recipe"] == "adam"]), Missing)
