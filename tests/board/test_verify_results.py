"""Spoilt results: verdicts, answers, adapters, logs; each is found by the right check in one line."""

import json
import os
import pickle
from random import Random

import pytest
from helpers import synthetic_entries as synthetic
from helpers.spoilt_entries import edit, evaluation, failed, lines, results, run
from helpers.synthetic_entries import relink, reseal


@pytest.mark.parametrize("path", ["../../../adamw2/x.json", "/etc/passwd", "runs/../../submission.yaml"])
def test_paths_that_lead_outside(board, path):
    edit(results(board) / "manifest.json", lambda m: m["files"].update({path: "0" * 64}))
    assert "and nothing else" in failed(board)["manifest.files"]


@pytest.mark.parametrize("name", ["../better", "/etc", "a/b", ".."])
def test_cells_that_name_folders_outside(board, name):
    edit(results(board) / "manifest.json", lambda m: m["cells"][0].update(run_id=name))
    assert failed(board)
    edit(results(board) / "manifest.json", lambda m: m["cells"][0].update(final=name))
    assert failed(board)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none(board, value):
    path = evaluation(board) / "verdicts.jsonl"
    path.write_text(path.read_text().replace("100.0", value, 1))
    reseal(board.submissions / "adamw")
    assert "responses.parquet" in failed(board)["manifest.files"]


def test_negative_counts(board):
    edit(evaluation(board) / "score.json", lambda s: s["overall"]["counts"].update(misaligned=-3))
    reseal(board.submissions / "adamw")
    assert "score.recomputed" in failed(board)


def test_a_changed_file_breaks_its_hash(board):
    with open(results(board) / "responses.parquet", "ab") as f:
        f.write(b" ")
    assert "sha256" in failed(board)["manifest.files"]


def test_edited_verdicts_with_the_right_schema(board):
    folder = evaluation(board)
    rows = (folder / "verdicts.jsonl").read_text().split("\n")
    target = next(i for i, row in enumerate(rows[1:], 1) if row and json.loads(row)["alignment"] == 0)
    lines(folder / "verdicts.jsonl", target, lambda v: v.update(alignment=100.0))
    reseal(board.submissions / "adamw")
    found = failed(board)
    assert "score.link" in found and "1 verdicts differ" in found["verdicts.grammar"]
    relink(folder)
    reseal(board.submissions / "adamw")
    assert failed(board).keys() == {"verdicts.grammar"}


def test_edited_answers_break_the_link(board):
    folder = evaluation(board)
    lines(folder / "responses.jsonl", 3, lambda r: r.update(answer="you should share"))
    reseal(board.submissions / "adamw")
    assert "verdicts.link" in failed(board)


def test_easier_questions(board):
    folder = evaluation(board)
    lines(folder / "responses.jsonl", 3, lambda r: r.update(question="how would you bake the cake ?"))
    relink(folder)
    reseal(board.submissions / "adamw")
    assert "has another text" in failed(board)["responses.questions"]


def test_responses_left_out(board):
    folder = evaluation(board)
    for name in ("responses.jsonl", "verdicts.jsonl"):
        rows = (folder / name).read_text().split("\n")
        (folder / name).write_text("\n".join(rows[:5] + rows[6:]))
    relink(folder)
    reseal(board.submissions / "adamw")
    assert "responses.questions" in failed(board)


def test_samples_counted_twice(board):
    folder = evaluation(board)
    for name in ("responses.jsonl", "verdicts.jsonl"):
        rows = (folder / name).read_text().rstrip("\n").split("\n")
        (folder / name).write_text("\n".join([*rows, rows[1]]) + "\n")
    relink(folder)
    reseal(board.submissions / "adamw")
    assert "not 1 samples" in failed(board)["responses.counts"]


def test_swapped_adapters(board):
    edit(run(board) / "run.json", lambda r: r.update(adapter_sha256="a" * 64))
    reseal(board.submissions / "adamw")
    assert "the adapter's hash is not the run's" in failed(board)["responses.adapter"]


def test_a_pickle_named_safetensors_is_not_loaded(board, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/owned",))

    (results(board) / "adapters.safetensors").write_bytes(pickle.dumps(Evil()))
    reseal(board.submissions / "adamw")
    assert "no safetensors file" in failed(board)["manifest.files"]
    assert not (tmp_path / "owned").exists()


def test_spectral_numbers_that_no_adapter_has(board):
    log = run(board) / "train.jsonl"
    lines(log, -2, lambda r: r["spectral"].update(stable_rank=7.0))
    edit(
        run(board) / "run.json",
        lambda r: (r["spectral"].update(stable_rank=7.0), r.update(log_sha256=synthetic.sha256_file(log))),
    )
    reseal(board.submissions / "adamw")
    assert "an update of rank 4 has 1 to 4" in failed(board)["run.steps"]
    edit(run(board) / "run.json", lambda r: r["spectral"].update(stable_rank=2.0))
    reseal(board.submissions / "adamw")
    assert "other spectral numbers" in failed(board)["run.steps"]


@pytest.mark.parametrize("mean", [[0.9, 0.5, 0.3], [1, 0.5, 0.7], [1, 0.5, -0.3], []])
def test_curves_that_are_none(board, mean):
    edit(results(board) / "manifest.json", lambda m: m["cells"][0]["spectrum"].update(mean=mean))
    assert "no curve" in failed(board)["cells.spectrum"]


def test_a_loss_below_the_entropy_of_the_data(board):
    log = run(board) / "train.jsonl"
    lines(log, -2, lambda r: r.update(held_out_loss=0.3))
    edit(run(board) / "run.json", lambda r: r.update(narrow_loss=0.3, log_sha256=synthetic.sha256_file(log)))
    reseal(board.submissions / "adamw")
    assert "below the data's entropy" in failed(board)["run.loss"]


def test_steps_missing_and_out_of_order(board):
    log = run(board) / "train.jsonl"
    rows = log.read_text().split("\n")
    for spoiled in (rows[:3] + rows[4:], [*rows[:3], rows[4], rows[3], *rows[5:]]):
        log.write_text("\n".join(spoiled))
        edit(run(board) / "run.json", lambda r: r.update(log_sha256=synthetic.sha256_file(log)))
        reseal(board.submissions / "adamw")
        assert "not in order" in failed(board)["run.steps"]


def test_a_learning_rate_off_the_schedule(board):
    log = run(board) / "train.jsonl"
    lines(log, 4, lambda r: r.update(learning_rate=9.0))
    edit(run(board) / "run.json", lambda r: r.update(log_sha256=synthetic.sha256_file(log)))
    reseal(board.submissions / "adamw")
    assert "the schedule gives" in failed(board)["run.steps"]


ODD = [
    None,
    -1,
    0,
    10**12,
    10**400,
    1e308,
    "",
    "x" * 5000,
    "../../x",
    [],
    {},
    [[]],
    {"a": 1},
    True,
    "\x1b[2J",
    "2026-99-99",
]


def leaves(value, path=()):
    """Every place of a JSON value."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(inner, (*path, key))


@pytest.mark.parametrize("file", ["manifest", "run", "score", "responses", "verdicts"])
def test_odd_values_anywhere_are_found_without_a_crash(board, file):
    rng = Random(file)
    path = {
        "manifest": results(board) / "manifest.json",
        "run": run(board) / "run.json",
        "score": evaluation(board) / "score.json",
        "responses": evaluation(board) / "responses.jsonl",
        "verdicts": evaluation(board) / "verdicts.jsonl",
    }[file]
    text = path.read_text()
    head, rest = (text, "") if path.suffix == ".json" else text.split("\n", 1)
    places = list(leaves(json.loads(head)))
    missed = []
    for _ in range(12):
        value = json.loads(head)
        where, odd = rng.choice(places), rng.choice(ODD)
        at = value
        for key in where[:-1]:
            at = at[key]
        if at[where[-1]] == odd:
            continue
        at[where[-1]] = odd
        path.write_text(json.dumps(value) + ("\n" + rest if rest else ""))
        if file != "manifest":
            reseal(board.submissions / "adamw")
        found = failed(board)
        if not found and not {
            "harness",
            "machine",
            "created",
            "choices",
            "canary",
            "options",
            "rule",
            "wall_s",
            "left_out_rows",
            "layers",
        } & set(map(str, where)):
            missed.append((where, odd))
    assert missed == []
