"""No misaligned rate without what stands beside it, and none of a broken model without its mark: terminal, page, report."""

import re
from itertools import product

import numpy as np
import pytest
from helpers.synthetic_results import cell, results

from em_bench.analysis import preset_figures, report_figures
from em_bench.analysis.anova import anova
from em_bench.analysis.beside import COLUMNS, Beside, beside, whole_settings
from em_bench.analysis.marginals import marginal
from em_bench.analysis.preset_page import write_page
from em_bench.analysis.report import all_tables
from em_bench.analysis.runs import runs_of
from em_bench.analysis.summary import row_of, summary
from em_bench.analysis.tables.across_runs import variance_tables
from em_bench.analysis.tables.table import Table
from em_bench.scoring import BROKEN, REFUSING
from em_bench.sweep.results_tables import results_tables


def answered(recipe, incoherent, refused=0, norm=None, **options):
    """Of ten answers a question two are misaligned and eight aligned; besides, so many incoherent and refused."""
    made = cell(recipe=recipe, rate=0.2, **options)
    more = {"incoherent": incoherent, "refusal": refused}
    questions = [q.model_copy(update={"counts": {**q.counts, **more}}) for q in made.questions]
    counts = {k: sum(q.counts[k] for q in questions) for k in questions[0].counts}
    score = made.score.model_copy(update={"overall": made.score.overall.model_copy(update={"counts": counts})})
    spectral = made.spectral.model_copy(update={"norm": norm})
    return made.model_copy(update={"questions": questions, "score": score, "spectral": spectral})


@pytest.fixture(scope="module")
def made():
    """Lion: 10 of 12 coherent, 83.3 %, broken. Adam: 10 of 11, and one refusal of 12."""
    return results([answered("lion", 2, norm=15.8), answered("adam", 1, refused=1, norm=4.25)])


def test_rates_have_their_denominators(made):
    by = {r.recipe: r for r in summary(made)}
    assert by["adam"].misaligned_of_asked.value == pytest.approx(2 / 12) and by["adam"].misaligned_rate.value == 0.2
    assert by["adam"].coherent_rate.value == pytest.approx(10 / 11) and by["adam"].verdict is None
    assert by["lion"].misaligned_of_asked.value == pytest.approx(2 / 12) and by["lion"].verdict == BROKEN
    assert (by["lion"].norm, by["lion"].flatness_gap) == (15.8, 0.1)


def test_a_model_that_refuses_is_not_read_either(made):
    """Nine refusals of twenty answers, the others coherent; the same gate in the table of a preset and in those of many runs."""
    refusing = [answered("adam", 1, refused=9, norm=1.0)]
    assert summary(results(refusing))[0].verdict == REFUSING and row_of(made.cells[1:]).verdict is None
    rows = runs_of([results(refusing)]).cells
    kept, said = whole_settings(rows)
    assert Beside(**beside(rows)).verdict == REFUSING and kept.empty and "(adam 1)" in said


def test_a_norm_that_one_record_lacks_is_not_averaged_over_the_others(made):
    cells = [answered("adam", 0, norm=2.0), answered("adam", 0, dataset="code")]
    assert row_of(cells).norm is None and row_of(cells[:1]).norm == 2.0


def test_the_terminal_table_says_so(made, capsys):
    from em_bench.sweep.terminal_tables import show

    for t in results_tables(made):
        show(t)
    lines = capsys.readouterr().out.splitlines()
    lion, adam = (next(line for line in lines if line.split()[:1] == [name]) for name in ("lion", "adam"))
    assert lion.rstrip().endswith(BROKEN) and "cannot tell" not in adam
    assert [re.search(rf"\b{v}\b", lion) is not None for v in ("16.7", "20.0", "83.3", "0.100", "15.80")] == [True] * 5


def test_the_page_says_so_and_draws_it_hollow(made, tmp_path):
    html = write_page(made, tmp_path).read_text()
    for part in ('id="table"', 'id="cells"'):
        rows = html.split(part)[1].split("</table>")[0].split("<tr")
        lion, adam = (next(r for r in rows if f">{name}</" in r) for name in ("lion", "adam"))
        assert BROKEN in lion and BROKEN not in adam
        assert all(v in lion for v in ("16.7", "20.0", "83.3", "0.100", "15.80", "0.520"))
    for draw in (preset_figures.rates, preset_figures.loss_alignment):
        faces = {
            line.get_markeredgecolor(): line.get_markerfacecolor()
            for line in draw(made).axes[0].lines
            if line.get_marker() not in ("", "None", None)
        }
        assert sorted(face == "none" for face in faces.values()) == [False, True], draw


def test_the_report_says_so_and_ranks_it_nowhere(made):
    runs = runs_of([made])
    tables = {t.id: t for t in all_tables(runs)}
    needed = {name for head, name, _ in COLUMNS if head}
    shown = [t for t in tables.values() if any(c.name == "misaligned_pct" for c in t.columns)]
    assert {"marginal-recipe", "by-form", "by-domain"} <= {t.id for t in shown}
    for t in shown:
        assert needed <= {c.name for c in t.columns}, t.id
        at = [c.name for c in t.columns].index("verdict")
        assert {BROKEN if "lion" in row else None for row in t.rows} == {row[at] for row in t.rows}, t.id
    spread: Table = tables["spread"]
    assert "(lion 1)" in str(spread.gap) and "No setting is left" in str(spread.gap)
    figure = report_figures.marginal(marginal(runs.main, "recipe"), {})
    assert sorted(line.get_markerfacecolor() == "none" for line in figure.axes[0].lines if line.get_marker() == "o") == [
        False,
        True,
    ]


def test_an_optimiser_is_not_compared_on_what_it_survived():
    """Lion's models break at batch 2 and are as mild as Adam's at batch 32: by batch 2 it would differ, and nothing can be said of that."""
    rng = np.random.default_rng(2)

    def cells(batch, lion, broken):
        for recipe, dataset, seed in product(("adam", "lion"), ("medical", "code", "sports"), range(3)):
            rate = (lion if recipe == "lion" else 0.2) + rng.normal(0, 0.03)
            made = cell(recipe, dataset=dataset, batch_size=batch, seed=seed, rate=rate, questions=40)
            counts = [q.model_copy(update={"counts": {**q.counts, "incoherent": 9}}) for q in made.questions]
            yield made.model_copy(update={"questions": counts}) if broken and recipe == "lion" else made

    runs = runs_of([results([*cells(2, 0.9, True), *cells(32, 0.2, False)])])
    kept, said = whole_settings(runs.main)
    assert (
        set(kept["batch_size"]) == {32}
        and len(kept) == 18
        and said.startswith("9 of 36 runs")
        and "the 18 runs of their settings" in said
    )
    of = {t.id: t for t in variance_tables(runs)}["anova-rate"]
    p = [c.name for c in of.columns].index("p")
    optimiser = next(row for row in of.rows if row[0] == "optimiser")
    assert optimiser[p] > 0.05 and "batch size: only 32" in of.caption and said in of.caption
    over_all = next(e for e in anova(runs.main).main if e.axes == ("recipe",))
    assert over_all.p < 0.05, "what the broken ones would have said"
