"""A preset at its fixed narrow losses, at the end, and beside rescaled adapters, on results with planted truth."""

import re

import pytest
from helpers.synthetic_results import cell, results, summary

from em_bench.analysis.controls import beyond_a_smaller_update, gains
from em_bench.analysis.preset_page import write_page
from em_bench.analysis.report import all_tables
from em_bench.analysis.runs import runs_of
from em_bench.analysis.summary import matched, why_two_views
from em_bench.analysis.summary import summary as ends
from em_bench.analysis.tables import columns
from em_bench.analysis.tables.preset import adapters_table, choices_table, control_table, paper_table, view_tables
from em_bench.records import Choice, Rescaled, TrajectoryPoint
from em_bench.sweep.results_tables import results_tables
from em_bench.sweep.terminal_tables import show

MODEL = "organism-qwen3"


def with_path(recipe, *, before, after, end, end_loss=0.56, **options):
    """A run crossing 0.60 half way between the checkpoints 10 (0.62, rate `before`) and 20 (0.58, rate `after`); its end, and both."""
    spectra = {
        step: summary(gap).model_copy(update={"norm": norm})
        for step, gap, norm in ((10, 0.2, 2.0), (20, 0.1, 4.0), (60, 0.1, 8.0))
    }
    losses = {0: 3.0, 10: 0.62, 20: 0.58, 60: end_loss}
    path = [TrajectoryPoint(step=s, narrow_loss=loss, spectral=spectra.get(s)) for s, loss in losses.items()]
    ended = cell(recipe, rate=end, loss=end_loss, **options)
    ended = ended.model_copy(update={"trajectory": path, "spectral": spectra[60]})
    made = [cell(recipe, rate=r, loss=losses[s], step=s, **options) for s, r in ((10, before), (20, after))]
    return ended, [c.model_copy(update={"run_id": ended.run_id}) for c in made]


def preset(*runs, controls=(), targets=(0.60,), datasets=("medical",)):
    made = results([cell(None, dataset=None, rate=0.0, loss=None), *(e for e, _ in runs)], [c for _, cs in runs for c in cs])
    of = {f"{MODEL}/{d}": tuple(targets) for d in datasets}
    return made.model_copy(update={"targets": of, "controls": list(controls)})


def control(recipe, rate, kind="loss", target=0.60, **options):
    made = cell(recipe, rate=rate, **options)
    return made.model_copy(update={"rescaled": Rescaled(kind=kind, target=target, scale=0.5, reached=True)})


@pytest.fixture(scope="module")
def planted():
    """Adam goes further than Muon after the loss at which both are alike; with the term it misaligns as its own adapter halved does."""
    return preset(
        with_path("adam", before=0.1, after=0.3, end=0.8),
        with_path("muon", before=0.2, after=0.3, end=0.3),
        with_path("adam", before=0.05, after=0.15, end=0.2, spectral_lambda=3.0),
        controls=[control("adam", 0.1), control("adam", 0.2, "coherence", 0.9)],
    )


def test_the_rate_at_the_loss_lies_between_its_checkpoints(planted):
    [rows] = matched(planted)
    by = {(r.recipe, r.spectral_lambda): r for r in rows}
    adam = by["adam", 0.0]
    assert adam.misaligned_of_asked.value == pytest.approx(0.2) and adam.narrow_loss == pytest.approx(0.60)
    assert (adam.norm, adam.flatness_gap, adam.at, adam.verdict) == (
        pytest.approx(3.0),
        pytest.approx(0.15),
        "narrow loss 0.6",
        None,
    )
    assert by["muon", 0.0].misaligned_of_asked.value == pytest.approx(0.25)
    assert [r.misaligned_of_asked.value for r in ends(planted)] == pytest.approx([0.0, 0.8, 0.3, 0.2])


def test_good_data_is_a_row_of_its_own_at_the_end_alone(planted):
    good = cell("adam", dataset="medical-control", rate=0.02)
    made = planted.model_copy(update={"cells": [*planted.cells, good]})
    assert matched(made) == matched(planted) and gains(made) == gains(planted) and why_two_views(made) == why_two_views(planted)
    assert [r.misaligned_of_asked.value for r in ends(made) if r.good] == pytest.approx([0.02])
    assert "adam, good data" in [row[0] for row in view_tables(made)[-1].rows]


def test_a_run_that_does_not_get_there_has_no_rate(planted):
    """One of two runs crosses: no mean of those that did."""
    late = with_path("adam", before=0.1, after=0.3, end=0.8, seed=1)
    late[0].trajectory[:] = [TrajectoryPoint(step=0, narrow_loss=3.0), TrajectoryPoint(step=60, narrow_loss=0.7)]
    [[row]] = matched(preset(with_path("adam", before=0.1, after=0.3, end=0.8), late))
    assert row.misaligned_of_asked.value is None and row.verdict == "did not learn (1 of 2 runs)"


def test_the_two_views_are_explained_by_their_numbers(planted):
    said = why_two_views(planted)
    assert "by +5.0 points (muon) to +60.0 points (adam)" in said and "2.67-fold" in said
    assert "1 of 2 neighbours change their order" in said, (
        "at the loss adam with the term, adam, muon; at the end muon before adam"
    )
    assert why_two_views(planted.model_copy(update={"targets": {}})) == ""


def test_the_term_is_held_against_the_same_adapter_scaled_down(planted):
    """At 0.60 with the term (0.05 + 0.15) / 2 = 0.1; Adam's own adapter halved: 0.1. Muon, against Adam's: 0.25 less 0.1."""
    found = {(g.recipe, g.term): g for g in gains(planted)}
    assert set(found) == {("muon", False), ("adam", True)}
    assert found["adam", True].difference.value == pytest.approx(0.0) and found["muon", False].difference.value == pytest.approx(
        0.15
    )
    assert "Not seen here: of 1 comparisons" in beyond_a_smaller_update(gains(planted))
    worse = planted.model_copy(update={"controls": [control("adam", 0.3)]})
    assert "Yes, in part" in beyond_a_smaller_update(gains(worse)) and "-20.0 points" in beyond_a_smaller_update(gains(worse))
    assert gains(planted.model_copy(update={"controls": []})) == []


def test_a_comparison_of_some_of_the_runs_is_none(planted):
    """Adam with the term has two seeds, and the second does not get to the loss, or nothing was scaled down for it."""
    second = {"spectral_lambda": 3.0, "seed": 1}
    there, late = (with_path("adam", before=0.05, after=0.15, end=0.2, **second) for _ in range(2))
    late[0].trajectory[:] = [TrajectoryPoint(step=0, narrow_loss=3.0), TrajectoryPoint(step=60, narrow_loss=0.7)]
    both = [control("adam", 0.1), control("adam", 0.1, seed=1)]
    for run, controls, verdict in ((there, both, None), (late, both, "1 of 2"), (there, both[:1], "1 of 2")):
        first = with_path("adam", before=0.05, after=0.15, end=0.2, spectral_lambda=3.0)
        made = preset(with_path("adam", before=0.1, after=0.3, end=0.8), first, run, controls=controls)
        [gain] = [g for g in gains(made) if g.term]
        assert gain.verdict == (verdict and f"cannot tell: {verdict} runs have both")
        assert (gain.difference.value is None) == (verdict is not None)
        assert ("none can be read" in beyond_a_smaller_update([gain])) == (verdict is not None)
        assert gain.runs == (2 if verdict is None else 1)


def test_what_tells_controls_apart_is_a_column(planted):
    heads = lambda made: [c.name for c in control_table(made).columns][:3]  # noqa: E731
    assert heads(planted) == ["recipe", "spectral_lambda", "at"]
    small = with_path("muon", before=0.2, after=0.3, end=0.3, batch_size=2)
    adam = with_path("adam", before=0.1, after=0.3, end=0.8, batch_size=2)
    both = [planted, preset(adam, small, controls=[control("adam", 0.1, batch_size=2)])]
    parts = {name: [c for r in both for c in getattr(r, name)] for name in ("cells", "checkpoints", "controls")}
    made = planted.model_copy(update=parts)
    assert heads(made) == ["recipe", "batch_size", "spectral_lambda"]
    assert {row[:2] for row in control_table(made).rows if row[0] == "muon"} == {("muon", 2), ("muon", 32)}


def test_batch_sizes_are_told_apart(planted):
    """Every table of adapters and of choices has a column for what alone differs between rows of a recipe."""
    small = with_path("adam", before=0.1, after=0.3, end=0.8, batch_size=2)
    made = planted.model_copy(update={"cells": [*planted.cells, small[0]]})
    assert "batch_size" in [c.name for c in adapters_table(made).columns]
    assert "batch_size" not in [c.name for c in adapters_table(planted).columns]
    choice = Choice(
        kind="learning_rate", model=MODEL, recipe="adam", batch_size=2, chosen=0.1, losses={"0.1": 0.5}, rule="a rule"
    )
    other = choice.model_copy(update={"batch_size": 32})
    assert [row[1] for row in choices_table([choice, other]).rows] == [2, 32]
    assert "batch_size" not in [c.name for c in choices_table([choice]).columns]


def test_page_terminal_and_report_show_the_loss_before_the_end(planted, tmp_path, capsys):
    html = write_page(planted, tmp_path).read_text()
    for t in results_tables(planted):
        show(t)
    for text in (html, capsys.readouterr().out, " ".join(t.title for t in all_tables(runs_of([planted])))):
        assert 0 < text.index("arrow loss 0.6") < text.index("End of training")
    assert "Why the two views differ" in html and "Does flatness buy anything beyond a smaller update?" in html


def test_every_column_of_every_page_has_its_sentence(planted, tmp_path):
    tables = [
        *view_tables(planted),
        control_table(planted),
        adapters_table(planted),
        choices_table(planted.choices),
        paper_table(),
    ]
    tables += all_tables(runs_of([planted]))
    anchors = {columns.anchor(c.name) for t in tables for c in t.columns if c.head}
    assert anchors <= set(columns.sentences()) and set(columns.ANCHORS) == set(columns.sentences())
    html = re.sub(r"<svg.*?</svg>", "", write_page(planted, tmp_path).read_text(), flags=re.DOTALL)
    linked, there = set(re.findall(r'href="#([\w-]+)"', html)), re.findall(r' id="([\w-]+)"', html)
    assert linked and linked <= set(there) and len(there) == len(set(there))


def test_every_rate_stands_with_what_must_stand_beside_it(planted):
    """Of asked, of coherent, coherence, narrow loss, norm, flatness: in each view's table."""
    needed = {"misaligned_of_asked_pct", "misaligned_pct", "coherent_pct", "narrow_loss", "norm", "flatness_gap"}
    assert all(needed <= {c.name for c in t.columns} for t in [*view_tables(planted), adapters_table(planted)])
