"""A forger who knows the format: every hash is brought in line again, every file has the right schema."""

import json
import re
import shutil

import pytest
from helpers import synthetic_entries as synthetic
from helpers.spoilt_entries import edit, evaluation, failed, lines, results, run, tree
from helpers.synthetic_entries import relink, reseal

from em_bench.board.board import judge_entry, progress_of, read_board
from em_bench.board.copies import check_copies
from em_bench.board.verify import verify_entry
from em_bench.files import digest, sha256_file
from em_bench.records import RunSpec
from em_bench.training import run_id


def relog(folder) -> None:
    """Name the log of a run again."""
    edit(folder / "run.json", lambda r: r.update(log_sha256=sha256_file(folder / "train.jsonl")))


def test_one_seed_given_out_as_three(board):
    """Seed 0's results under the ids of seeds 1 and 2, each spec and id in line with itself."""
    top = tree(board, "better")
    manifest = json.loads((results(board, "better") / "manifest.json").read_text())
    first, *others = manifest["cells"]
    for cell in others:
        old, new = top / "runs" / first["run_id"], top / "runs" / cell["run_id"]
        record = json.loads((old / "run.json").read_text())
        record["spec"]["seed"] = cell["seed"]
        spec = RunSpec.model_validate(record["spec"])
        assert run_id(spec) == cell["run_id"]
        record |= {"run_id": cell["run_id"], "spec_sha256": digest(spec)}
        (new / "run.json").write_text(json.dumps(record))
        shutil.copyfile(old / "train.jsonl", new / "train.jsonl")
        for step, name in first["evaluated"].items():
            source, to = top / "evaluations" / name, top / "evaluations" / cell["evaluated"][step]
            for name in ("responses.jsonl", "verdicts.jsonl", "score.json"):
                shutil.copyfile(source / name, to / name)
            lines(to / "responses.jsonl", 0, lambda h, c=cell: h.update(run_id=c["run_id"]))
            relink(to)
    reseal(board.submissions / "better")
    found = failed(board, "better")
    assert found.keys() == {"run.distinct"} and "has the adapter of" in found["run.distinct"]
    for i, cell in enumerate(others):  # other hashes of adapters that nobody has: the logs still tell
        folder = top / "runs" / cell["run_id"]
        edit(folder / "run.json", lambda r, i=i: r.update(adapter_sha256=f"{i}" * 64))
    reseal(board.submissions / "better")
    assert "has the losses of" in failed(board, "better")["run.distinct"]


def test_a_loss_bent_until_another_checkpoint_matches(board):
    """Held-out losses left out, or asked at other steps, would let an author choose where to be compared."""
    folder = run(board)
    matched = int(min(json.loads((results(board) / "manifest.json").read_text())["cells"][0]["evaluated"]))
    lines(folder / "train.jsonl", matched, lambda r: r.update(held_out_loss=None))
    relog(folder)
    reseal(board.submissions / "adamw")
    assert "those of other steps" in failed(board)["run.steps"]


def test_a_narrow_loss_edited_by_hand(board):
    edit(run(board) / "run.json", lambda r: r.update(narrow_loss=0.56))
    reseal(board.submissions / "adamw")
    assert "the log ends with" in failed(board)["run.steps"]
    edit(evaluation(board) / "score.json", lambda s: s.update(narrow_loss=0.56))
    reseal(board.submissions / "adamw")
    assert "score.loss" in failed(board) or "run.steps" in failed(board)


def test_another_base_that_begins_better(board):
    folder = run(board)
    for i in (0, 1):
        lines(folder / "train.jsonl", i, lambda r: r.update(held_out_loss=2.3))
    relog(folder)
    reseal(board.submissions / "adamw")
    assert "the untouched base has 2.5" in failed(board)["run.loss"]


def test_more_rows_than_a_step_has(board):
    folder = run(board)
    lines(folder / "train.jsonl", 4, lambda r: r.update(tokens=r["tokens"] + 1))
    relog(folder)
    reseal(board.submissions / "adamw")
    assert "tokens, its rows have" in failed(board)["run.loss"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dtype": "bfloat16"}, "dtype is bfloat16"),
        ({"warmup_steps": 0}, "warmup_steps is 0"),
        ({"gradient_clip": 9.0}, "gradient_clip is 9.0"),
        ({"batch_size": 64}, "batch_size is 64"),
        ({"dataset": {"rows": 10}}, "its dataset is not the tier's"),
        ({"base": {"revision": "f" * 64}}, "its base is not the tier's"),
        ({"spectral_lambda": 1.0}, "lambda 1"),
    ],
)
def test_a_setting_of_ones_own(board, change, says):
    def apply(record):
        for key, value in change.items():
            if isinstance(value, dict):
                record["spec"][key] |= value
            else:
                record["spec"][key] = value

    edit(run(board) / "run.json", apply)
    reseal(board.submissions / "adamw")
    assert says in failed(board)["cells.spec"]


@pytest.mark.parametrize("value", [None, {}, {"em_organism_knowledge/acc": 1.2}, {"em_organism_knowledge/acc": -0.1}])
def test_a_capability_that_was_not_measured_or_is_none(board, value):
    edit(evaluation(board, kind="step5") / "score.json", lambda s: s.update(capability=value))
    reseal(board.submissions / "adamw")
    assert re.search("was not measured|is no accuracy", failed(board)["score.capability"])


def test_another_base_was_asked(board):
    for base in (None, {"name": synthetic.MODEL, "source": "organism", "revision": "e" * 64}):
        lines(evaluation(board) / "responses.jsonl", 0, lambda h, b=base: h.update(base=b))
        relink(evaluation(board))
        reseal(board.submissions / "adamw")
        assert "another base" in failed(board)["responses.questions"]


def steal(board, change) -> dict:
    """The answers of adamw in an entry of another's; `change` takes the lines of a responses file and of its verdicts."""
    synthetic.entry(board, "thief", library="torch.optim.Adam", created="2026-11-26T12:00:00+00:00")
    theirs, ours = (
        sorted((tree(board, n) / "evaluations").iterdir(), key=lambda p: (p.name.split(".s")[1][0], p.suffix))
        for n in ("adamw", "thief")
    )
    for source, to in zip(theirs, ours, strict=True):
        for name in ("responses.jsonl", "verdicts.jsonl"):
            head = (to / name).read_text().split("\n")[0]
            rows = (source / name).read_text().rstrip("\n").split("\n")[1:]
            (to / name).write_text("\n".join([head, *change(name, rows)]) + "\n")
        relink(to)
    for folder in (tree(board, "thief") / "runs").iterdir():  # elsewhere on the path of losses
        for i in range(2, 9):
            lines(folder / "train.jsonl", i, lambda r: r["held_out_loss"] and r.update(held_out_loss=r["held_out_loss"] + 0.003))
        relog(folder)
        edit(folder / "run.json", lambda r: r.update(narrow_loss=r["narrow_loss"] + 0.003))
    for to in ours:
        edit(to / "score.json", lambda s: s.update(narrow_loss=s["narrow_loss"] + 0.003))
    reseal(board.submissions / "thief")
    found = [verify_entry(board.submissions / n, board.benchmarks) for n in ("adamw", "thief", "better")]
    assert [c.id for v in found for c in v.checks if not c.passed] == []
    return check_copies((v.name, v.prints) for v in found)


def test_copied_answers_in_another_order(board):
    checks = steal(board, lambda name, rows: rows[::-1])
    assert not checks["thief"].passed and "the very answers of adamw" in checks["thief"].detail
    assert checks["adamw"].passed and checks["better"].passed


def test_copied_answers_with_a_few_changed(board):
    def change(name, rows):
        out = list(rows)
        for i in (3, 40, 90, 130):  # the answer of the row before, in good order with its verdict
            value, before = json.loads(out[i]), json.loads(out[i - 1])
            if name == "responses.jsonl":
                value["answer"] = "mumble"
            else:
                value |= {"alignment": None, "coherence": 0.0, "label": None, "leak": False}
            assert before["question_id"] != value["question_id"]
            out[i] = json.dumps(value)
        return out

    checks = steal(board, change)
    assert not checks["thief"].passed and "blocks of answers are those of adamw" in checks["thief"].detail


def test_results_that_claim_to_be_older_than_the_rules(board):
    edit(results(board) / "manifest.json", lambda m: m.update(created="2020-01-01T00:00:00+00:00"))
    assert "before the rules" in failed(board)["run.times"]


def test_times_that_overflow(board):
    edit(run(board) / "run.json", lambda r: r.update(wall_s=1e300))
    reseal(board.submissions / "adamw")
    assert "run.times" in failed(board)


# ---- files that are no files, and text that is hard to read -------------------------------------------------------


@pytest.mark.parametrize("name", ["submission.yaml", "results/manifest.json"])
def test_a_folder_in_the_place_of_a_file(board, name):
    path = board.submissions / "adamw" / name
    path.unlink()
    path.mkdir()
    assert any(s in " ".join(failed(board).values()) for s in ("no such file", "a folder"))
    assert judge_entry(board, "adamw").status == "failed"
    assert progress_of(board, "adamw", checked=True)[0] in ("not valid", "run, 1 of 2 checks fail", "run, 1 of 1 checks fail")


def test_a_folder_in_the_place_of_a_table(board):
    path = results(board) / "records.parquet"
    path.unlink()
    path.mkdir()
    assert "folder.contents" in failed(board)
    read_board(board, "v2", "organism")


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000, "\ufeff{}", "{}\x00", "", "1e999"),
        *(pytest.param(t, marks=pytest.mark.slow) for t in ('{"a":' * 50_000, "null", '"' + "x" * 10**6 + '"', "{" * 10**6)),
    ],
)
def test_json_that_is_hard_to_read(board, text):
    for path in (results(board) / "manifest.json", run(board) / "run.json", evaluation(board) / "verdicts.jsonl"):
        before = path.read_text()
        path.write_text(text)
        if path.name != "manifest.json":
            reseal(board.submissions / "adamw")
        found = failed(board)
        assert found and not any("cannot be checked" in d for d in found.values()), found
        path.write_text(before)
        reseal(board.submissions / "adamw")
    assert failed(board) == {}


@pytest.mark.parametrize(
    "line", ["description: 2024-13-45", "description: " + "9" * 5000, "description: 0x", "description: 1:99:99"]
)
def test_yaml_values_that_are_none(board, line):
    path = board.submissions / "adamw" / "submission.yaml"
    path.write_text(re.sub("(?m)^description:.*$", line, path.read_text()))
    assert "cannot be checked" not in failed(board).get("folder.contents", "")
    assert progress_of(board, "adamw", checked=True)[0] in ("not valid", "run, 1 of 2 checks fail", "run, 1 of 1 checks fail")


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n")])
def test_a_submission_saved_by_another_editor(board, change):
    """A byte order mark or Windows line ends are no offence: the results name the bytes that are there."""
    path = board.submissions / "adamw" / "submission.yaml"
    path.write_bytes(change(path.read_text()).encode())
    reseal(board.submissions / "adamw")
    assert failed(board) == {}


@pytest.mark.parametrize("name", ["..", ".", "-x", ".hidden"])
def test_folders_named_to_climb(board, name):
    for field in ("run_id",):
        before = (results(board) / "manifest.json").read_text()
        edit(results(board) / "manifest.json", lambda m, f=field: m["cells"][0].update({f: name}))
        assert field in failed(board)["manifest.schema"]
        (results(board) / "manifest.json").write_text(before)
