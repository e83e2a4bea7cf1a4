"""Reading runs: files, folders, one benchmark version, each evaluation once, and whose rate is its own."""

import gzip

import numpy as np
import pytest
from helpers.synthetic_results import cell, factorial, results

from em_bench.analysis.runs import counts, load_runs, pack, runs_of
from em_bench.errors import UserError
from em_bench.files import write_record
from em_bench.records import Choice


def test_files_folders_and_gzip_give_the_same(tmp_path):
    made = results(factorial(lambda *k: 0.2, seeds=(0,)))
    write_record(tmp_path / "work" / "results.json", made)
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(made.model_dump_json().encode()))
    for path in (tmp_path / "work", tmp_path / "work" / "results.json", tmp_path / "packed.json.gz"):
        assert list(load_runs([path]).cells["rate"]) == [20.0] * 40


def test_packed_results_are_the_same_runs_and_the_same_bytes(tmp_path):
    made = runs_of([results([cell("adam"), cell("lion")])])
    (first,), (second,) = (pack(made, tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert load_runs([tmp_path / "a"]).sources == made.sources
    several = runs_of([results([cell("adam")]), results([cell("lion")])])
    assert [load_runs([p]).sources[0] for p in pack(several, tmp_path / "c")] == list(several.sources)


def test_an_evaluation_in_two_results_counts_once(tmp_path):
    first, second = (results([cell("adam"), cell(r)]) for r in ("lion", "muon"))
    write_record(tmp_path / "a.json", first)
    write_record(tmp_path / "b.json", second)
    assert sorted(load_runs([tmp_path / "a.json", tmp_path / "b.json"]).cells["recipe"]) == ["adam", "lion", "muon"]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"version": "0.2.0"}, "0.2.0"),
        ({"convention": "exclude_code"}, "exclude_code"),
        ({"prefix": "other"}, "questions"),
    ],
)
def test_mixed_versions_are_refused(tmp_path, other, what):
    version = other.pop("version", "0.1.0")
    write_record(tmp_path / "a.json", results([cell("adam")]))
    write_record(tmp_path / "b.json", results([cell("lion", **other)], version=version))
    with pytest.raises(UserError, match="mixed benchmark versions") as e:
        load_runs([tmp_path / "a.json", tmp_path / "b.json"])
    assert what in str(e.value) and "\n" not in str(e.value)


def test_bad_files(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text('{"preset": 1}')
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"{}")[:-4])
    for path, message in [
        ("empty", "holds no results.json"),
        ("bad.json", "preset: "),
        ("none.json", "no such file"),
        ("cut.json.gz", "gzip"),
    ]:
        with pytest.raises(UserError, match=message) as e:
            load_runs([tmp_path / path])
        assert "\n" not in str(e.value) and path in str(e.value)


def test_own_rate_is_the_chosen_else_the_commonest_else_the_default():
    cells = [cell("adam", learning_rate=lr) for lr in (3e-4, 1e-3, 3e-3)] + [cell("lion", learning_rate=7e-4)]
    own = runs_of([results(cells)]).cells
    assert list(own[own["own_rate"]]["learning_rate"]) == [3e-4, 7e-4]  # the default of the grid; the only one
    choice = Choice(kind="learning_rate", model="organism-qwen3", recipe="adam", batch_size=32, chosen=3e-3, losses={}, rule="")
    own = runs_of([results(cells, choices=[choice])]).cells
    assert list(own[own["own_rate"]]["learning_rate"]) == [3e-3, 7e-4]


def test_main_sweep_is_of_models_that_saw_every_recipe_without_the_term():
    cells = factorial(lambda *k: 0.2, recipes=("adam", "lion"), seeds=(0,))
    cells += [cell("adam", model="organism-llama"), cell("adam", spectral_lambda=1.0)]
    main = runs_of([results(cells)]).main
    assert (
        set(main["model"]) == {"organism-qwen3", "organism-qwen3-small"}
        and set(main["spectral_lambda"]) == {0.0}
        and len(main) == 16
    )


def test_counts_and_rates_are_of_valued_responses():
    made = cell("adam", misaligned=[1, 2, 3], samples=4)
    y, n = counts(runs_of([results([made])]).cells)
    assert y.tolist() == [[1, 2, 3]] and n.tolist() == [[4, 4, 4]]
    table = runs_of([results([made])]).cells
    assert table["rate"][0] == 50 and table["alignment"][0] == 50 and table["coherent"][0] == 100
    y, _ = counts(table, "alignment")
    assert y.tolist() == [[300, 200, 100]]


def test_no_valued_response_is_no_rate():
    made = cell("adam", misaligned=[0, 0], samples=1)
    made = made.model_copy(
        update={
            "questions": [
                q.model_copy(update={"counts": {**q.counts, "aligned": 0, "incoherent": 1}, "alignment": []})
                for q in made.questions
            ]
        }
    )
    table = runs_of([results([made])]).cells
    assert np.isnan(table["rate"][0]) and np.isnan(table["alignment"][0]) and table["coherent"][0] == 0


def test_a_study_takes_its_own_runs_wherever_they_were_made():
    """A run that two presets made for two studies counts once and in both; runs for no study are taken where there are no others."""
    shared, rest = cell("adam", dataset="medical"), cell("adam", dataset="code", learning_rate=3e-4)
    of = {"studies": ["main"]}, {"studies": ["loss-alignment"]}
    runs = runs_of(
        [
            results([shared.model_copy(update=of[0])]),
            results([shared.model_copy(update=of[1]), rest.model_copy(update=of[1])]),
        ]
    )
    assert len(runs.cells) == 2 and list(runs.of("main")["dataset"]) == ["medical"]
    assert set(runs.of("loss-alignment")["dataset"]) == {"medical", "code"} and runs.of("dynamics").empty
    plain = cell("lion")
    both = runs_of([results([shared.model_copy(update=of[0]), plain])])
    assert list(both.of("main")["recipe"]) == ["adam"] and list(both.of("scale")["recipe"]) == ["lion"]
    assert list(runs_of([results([plain])]).of("main")["recipe"]) == ["lion"]
    assert runs_of([results([])]).of("main").empty and "spectral_lambda" in runs_of([results([])]).of("main")


def test_the_rates_of_a_study_are_its_own_and_varied_ones_are_not():
    tuned = cell("adam", learning_rate=5e-4).model_copy(update={"studies": ["dynamics"]})
    fixed = [cell("adam", dataset=d).model_copy(update={"studies": ["main", "loss-alignment"]}) for d in ("a", "b")]
    varied = cell("adam", dataset="c", learning_rate=3e-4).model_copy(update={"studies": ["loss-alignment"]})
    runs = runs_of([results([tuned, *fixed, varied])])
    assert runs.of("dynamics")["own_rate"].all() and runs.main["own_rate"].all()
    assert not runs.of("loss-alignment").set_index("dataset").loc["c", "own_rate"]
