"""Entries whose results do not belong together: times, rules, specs, cells, choices."""

import json
import shutil

import pytest
from helpers import synthetic_entries as synthetic
from helpers.spoilt_entries import edit, failed, lines, results, run, tree
from helpers.synthetic_entries import reseal


@pytest.mark.parametrize(
    ("started", "says"),
    [
        ("2026-11-24T13:00:00+00:00", "ends after"),
        ("yesterday", "not a time"),
        ("2026-11-24T11:00:00", "no zone"),
        ("2026-11-24T11:30:00+00:00", "before its run"),
    ],
)
def test_timestamps_out_of_order(board, started, says):
    edit(run(board) / "run.json", lambda r: r.update(started=started))
    reseal(board.submissions / "adamw")
    assert says in failed(board)["run.times"]


def test_results_from_the_future(board):
    edit(results(board) / "manifest.json", lambda m: m.update(created="2999-01-01T00:00:00+00:00"))
    assert "future" in failed(board)["run.times"]


def test_results_of_another_benchmark_version(board):
    edit(results(board) / "manifest.json", lambda m: m.update(benchmark="v9"))
    assert "v9" in failed(board)["manifest.schema"]


def test_results_made_under_other_rules(board):
    edit(results(board) / "manifest.json", lambda m: m.update(rules_sha256="b" * 64))
    assert "other rules" in failed(board)["manifest.schema"]


def test_a_submission_changed_after_its_results(board):
    path = board.submissions / "adamw" / "submission.yaml"
    path.write_text(path.read_text().replace("A synthetic entry.", "Another one."))
    assert "has changed" in failed(board)["manifest.schema"]


def test_another_optimiser_than_the_submission_names(board):
    path = board.submissions / "adamw" / "submission.yaml"
    path.write_text(path.read_text().replace("torch.optim.AdamW", "torch.optim.Adam"))
    reseal(board.submissions / "adamw")
    assert "not the submission's" in failed(board)["cells.spec"]


def test_a_spec_that_is_not_what_its_id_says(board):
    edit(run(board) / "run.json", lambda r: r["spec"].update(steps=9))
    reseal(board.submissions / "adamw")
    found = failed(board)
    assert "run.identity" in found and "steps is 9" in found["cells.spec"]


def test_a_seed_left_out(board):
    gone = {}
    edit(results(board) / "manifest.json", lambda m: gone.update(m["cells"].pop()))
    assert "belongs to no cell" in failed(board)["manifest.files"]
    shutil.rmtree(tree(board) / "runs" / gone["run_id"])
    for name in gone["evaluated"].values():
        shutil.rmtree(tree(board) / "evaluations" / name)
    reseal(board.submissions / "adamw")
    assert "has no result" in failed(board)["cells.complete"]


def test_a_later_checkpoint_than_the_first(board):
    edit(
        results(board) / "manifest.json", lambda m: m["cells"][0]["evaluated"].update({"7": m["cells"][0]["evaluated"].pop("4")})
    )
    assert "its log asks for steps" in failed(board)["cells.evaluated"]


def test_a_learning_rate_that_the_losses_do_not_choose(board):
    worse = next(
        p
        for p in (tree(board) / "runs").iterdir()
        if json.loads((p / "run.json").read_text())["spec"]["recipe"]["learning_rate"] == 7.94e-4
    )
    lines(worse / "train.jsonl", -2, lambda r: r.update(held_out_loss=0.56))
    edit(
        worse / "run.json",
        lambda r: r.update(narrow_loss=0.56, log_sha256=synthetic.sha256_file(worse / "train.jsonl")),
    )
    reseal(board.submissions / "adamw")
    assert "the logs choose 0.000794" in failed(board)["cells.chosen"]


def test_candidates_left_out(board):
    def drop(m):
        m["tuning"] = []
        m["choices"] = [
            {
                "kind": "learning_rate",
                "model": synthetic.MODEL,
                "recipe": "adamw",
                "chosen": 1e-3,
                "losses": {"0.000794": 0.6, "0.001": 0.57},
                "rule": "",
            }
        ]

    edit(results(board) / "manifest.json", drop)
    for p in list((tree(board) / "runs").iterdir()):
        if json.loads((p / "run.json").read_text())["spec"]["recipe"]["learning_rate"] == 7.94e-4:
            shutil.rmtree(p)
    reseal(board.submissions / "adamw")
    assert "the next smaller one, are not in the entry" in failed(board)["cells.chosen"]
