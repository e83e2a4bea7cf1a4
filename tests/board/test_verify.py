"""Hostile and broken entries: each is found by the right check in one line, nothing is executed or written."""

import hashlib
import json
import os
import pickle
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
import synthetic_entries as synthetic
from synthetic_entries import relink, reseal

from em_bench.board.copies import Fingerprint, check_copies
from em_bench.board.verify import verify_entry
from em_bench.errors import UserError


def failed(folders, name="adamw") -> dict[str, str]:
    """check id -> detail of what fails; every detail is one printable line."""
    found = verify_entry(folders.submissions / name, folders.benchmarks, datetime(2026, 12, 1, tzinfo=UTC))
    out = {c.id: c.detail for c in found.checks if not c.passed}
    for detail in out.values():
        assert detail and "\n" not in detail and len(detail) < 500
    return out


def snapshot(folder: Path) -> set[tuple]:
    return {(p, p.lstat().st_mtime_ns, p.lstat().st_size) for p in folder.rglob("*")}


def edit(path: Path, change) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def lines(path: Path, number: int, change) -> None:
    """Change one line of a JSON lines file."""
    all_lines = path.read_text().split("\n")
    value = json.loads(all_lines[number])
    change(value)
    all_lines[number] = json.dumps(value)
    path.write_text("\n".join(all_lines))


def results(folders, name="adamw") -> Path:
    return folders.submissions / name / "results"


def evaluation(folders, name="adamw", kind="end") -> Path:
    return sorted((results(folders, name) / "evaluations").glob(f"*.{kind}"))[0]


def run(folders, name="adamw") -> Path:
    """The run of the first cell."""
    manifest = json.loads((results(folders, name) / "manifest.json").read_text())
    return results(folders, name) / "runs" / manifest["cells"][0]["run_id"]


def test_an_honest_entry_passes_and_nothing_is_written(board):
    before = snapshot(board.submissions.parent)
    for name in ("adamw", "better", "lazy"):
        assert failed(board, name) == {}
    assert snapshot(board.submissions.parent) == before


# ---- what may lie in the folder ----------------------------------------------------------------------------------


def test_symlinks(board, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (results(board) / "link.json").symlink_to(secret)
    assert "symbolic link" in failed(board)["folder.contents"]


def test_a_linked_folder(board):
    (board.submissions / "linked").symlink_to(board.submissions / "adamw")
    assert "symbolic link" in failed(board, "linked")["folder.contents"]


def test_a_linked_folder_inside(board, tmp_path):
    shutil.rmtree(results(board))
    results(board).symlink_to(tmp_path)
    assert "symbolic link" in failed(board)["folder.contents"]


@pytest.mark.parametrize("name", ["results.zip", "x.tar.gz", "weights.pkl", "run.sh", "x.safetensors.gz"])
def test_archives_pickles_and_scripts(board, name):
    (results(board) / name).write_bytes(b"PK\x03\x04")
    assert "an entry holds" in failed(board)["folder.contents"]


def test_names_that_collide_by_case(board):
    (results(board) / "Manifest.json").write_text("{}")
    assert "collides" in failed(board)["folder.contents"]


@pytest.mark.parametrize("name", ["ｒesults.json", "re\u200bsults.json", "a\nb.json", ".hidden.json"])
def test_names_that_mislead(board, name):
    (results(board) / name).write_text("{}")
    assert "printable ASCII" in failed(board)["folder.contents"]


def test_a_pipe_does_not_hang(board):
    os.mkfifo(results(board) / "pipe.json")
    assert "not a regular file" in failed(board)["folder.contents"]


def test_ten_thousand_files(board):
    for i in range(10_000):
        (results(board) / f"{i}.json").touch()
    assert "more than 2,000 files" in failed(board)["folder.contents"]


def test_ten_thousand_folders(board):
    for i in range(10_000):
        (results(board) / f"d{i}").mkdir()
    assert "more than" in failed(board)["folder.contents"]


def test_folders_nested_without_end(board):
    deep = results(board).joinpath(*["d"] * 200)
    deep.mkdir(parents=True)
    assert "nested" in failed(board)["folder.contents"]


def test_a_huge_file_is_not_read(board):
    with open(results(board) / "manifest.json", "wb") as f:
        f.truncate(3 << 30)
    assert "MiB" in failed(board)["folder.contents"]


def test_an_unknown_file_is_extra(board):
    (results(board) / "more.json").write_text("{}")
    assert "not named by the manifest" in failed(board)["manifest.files"]
    reseal(board.submissions / "adamw")
    assert "belongs to no cell" in failed(board)["manifest.files"]


# ---- submission.yaml ---------------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "aliases"),
        ("name: !!python/object/apply:os.system ['touch /tmp/em_bench_owned']", "tag"),
        ("name: !!python/name:os.system", "tag"),
        ("name: a\nname: b", "twice"),
        ("{" * 3000, "not YAML: nested too deeply"),
        ("- just\n- a list", "Input should be"),
        ("x: " + "y" * 100_000, "over 64 KiB"),
        ("\x00", "not YAML: special"),
        ("? [a, b]\n: c", "unhashable key"),
    ],
)
def test_yaml_bombs_tags_and_nonsense(board, text, says):
    (board.submissions / "adamw" / "submission.yaml").write_text(text)
    assert re.search(says, failed(board)["folder.contents"])
    assert not Path("/tmp/em_bench_owned").exists()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "../../etc", "name"),
        ("name", "/abs/olute", "name"),
        ("name", "other-name", "not the folder's name"),
        ("benchmark", "../v1", "no such version"),
        ("benchmark", "v2", "no such version"),
        ("link", "javascript:alert(1)", "link"),
        ("link", 'https://x.org/"onclick="x', "link"),
        ("authors", ["a\u202eb"], "authors"),
        ("authors", ["a\nb"], "authors"),
        ("description", "a\x1b[2Jb", "description"),
        ("learning_rates", [1e-3, 1e-4, 1e-5, 1e-6], "learning_rates"),
        ("learning_rates", [float("nan")], "learning_rates"),
        ("learning_rates", [float("inf")], "learning_rates"),
        ("learning_rates", [-1.0], "learning_rates"),
        ("lambdas", [1.0], "lambdas"),
        ("optimizer", {"library": "os.system"}, "library"),
        ("optimizer", {"library": "torch.optim.adamw.os.system"}, "library"),
        ("optimizer", {"library": "torch.optim.AdamW", "kwargs": {"lr": {"a": 1}}}, "kwargs"),
        ("surprise", 1, "surprise"),
    ],
)
def test_fields(board, field, value, says):
    import yaml

    path = board.submissions / "adamw" / "submission.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {field: value}, allow_unicode=True))
    assert says in failed(board)["folder.contents"]


# ---- results -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../../../adamw2/x.json", "/etc/passwd", "runs/../../submission.yaml"])
def test_paths_that_lead_outside(board, path):
    edit(results(board) / "manifest.json", lambda m: m["files"].update({path: "0" * 64}))
    assert "missing" in failed(board)["manifest.files"]


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
    assert "verdicts.jsonl" in failed(board)["verdicts.cover"]


def test_negative_counts(board):
    edit(evaluation(board) / "score.json", lambda s: s["overall"]["counts"].update(misaligned=-3))
    reseal(board.submissions / "adamw")
    assert "score.recomputed" in failed(board)


def test_a_changed_file_breaks_its_hash(board):
    with open(evaluation(board) / "responses.jsonl", "a") as f:
        f.write(" ")
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

    adapter = run(board) / "adapter" / "adapter_model.safetensors"
    adapter.parent.mkdir()
    adapter.write_bytes(pickle.dumps(Evil()))
    reseal(board.submissions / "adamw")
    assert "sha256" in failed(board)["run.adapter"]
    edit(run(board) / "run.json", lambda r: r.update(adapter_sha256=hashlib.sha256(adapter.read_bytes()).hexdigest()))
    reseal(board.submissions / "adamw")
    assert "not a safetensors file" in failed(board)["run.adapter"]
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
    shutil.rmtree(results(board) / "runs" / gone["run_id"])
    for name in {gone["matched"], gone["final"]}:
        shutil.rmtree(results(board) / "evaluations" / name)
    reseal(board.submissions / "adamw")
    assert "has no result" in failed(board)["cells.complete"]


def test_a_later_checkpoint_than_the_first(board):
    edit(results(board) / "manifest.json", lambda m: m["cells"][0].update(matched_step=8))
    assert "first reaches" in failed(board)["cells.matched"]


def test_a_learning_rate_that_the_losses_do_not_choose(board):
    worse = next(
        p
        for p in (results(board) / "runs").iterdir()
        if json.loads((p / "run.json").read_text())["spec"]["recipe"]["learning_rate"] == 1e-4
    )
    lines(worse / "train.jsonl", -2, lambda r: r.update(held_out_loss=0.55))
    edit(
        worse / "run.json",
        lambda r: r.update(narrow_loss=0.55, log_sha256=synthetic.sha256_file(worse / "train.jsonl")),
    )
    reseal(board.submissions / "adamw")
    assert "losses choose 0.0001" in failed(board)["cells.chosen"]


def test_candidates_left_out(board):
    def drop(m):
        m["tuning"] = []
        m["choices"] = [
            {
                "kind": "learning_rate",
                "model": synthetic.MODEL,
                "recipe": "adamw",
                "chosen": 1e-3,
                "losses": {"0.0001": 0.6, "0.001": 0.57},
                "rule": "",
            }
        ]

    edit(results(board) / "manifest.json", drop)
    for p in list((results(board) / "runs").iterdir()):
        if json.loads((p / "run.json").read_text())["spec"]["recipe"]["learning_rate"] == 1e-4:
            shutil.rmtree(p)
    reseal(board.submissions / "adamw")
    assert "are not in the entry" in failed(board)["cells.chosen"]


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


@pytest.mark.parametrize("file", ["manifest", "run", "score", "log", "responses", "verdicts"])
def test_odd_values_anywhere_are_found_without_a_crash(board, file):
    rng = Random(file)
    path = {
        "manifest": results(board) / "manifest.json",
        "run": run(board) / "run.json",
        "score": evaluation(board) / "score.json",
        "log": run(board) / "train.jsonl",
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


def test_responses_copied_from_another_entry(board):
    synthetic.entry(board, "thief", library="torch.optim.Adam", created="2026-11-26T12:00:00+00:00")
    for kind in ("end", "step6", "step8"):
        for theirs, ours in zip(
            *(sorted((results(board, n) / "evaluations").glob(f"*.{kind}")) for n in ("adamw", "thief")), strict=False
        ):
            header = (ours / "responses.jsonl").read_text().split("\n")[0]
            answers = (theirs / "responses.jsonl").read_text().split("\n")[1:]
            (ours / "responses.jsonl").write_text("\n".join([header, *answers]))
            said = (ours / "verdicts.jsonl").read_text().split("\n")[0]
            (ours / "verdicts.jsonl").write_text("\n".join([said, *(theirs / "verdicts.jsonl").read_text().split("\n")[1:]]))
            relink(ours)
    reseal(board.submissions / "thief")
    assert failed(board, "thief") == {}
    found = [verify_entry(board.submissions / n, board.benchmarks) for n in ("adamw", "thief", "better")]
    checks = check_copies((v.name, v.prints) for v in found)
    assert not checks["thief"].passed and "the very answers of adamw" in checks["thief"].detail
    assert checks["adamw"].passed and checks["better"].passed


@pytest.mark.parametrize(
    ("shared", "blocks", "apart", "passed"),
    [
        (20, 100, 0.0, False),
        (19, 100, 0.0, False),
        (15, 97, 0.0, True),  # Adam and AdamW
        (15, 97, 0.01, False),
        (0, 60, 0.01, False),  # a copy in which some answers were changed
        (0, 45, 0.01, True),
        (0, 0, 0.0, True),
    ],
)
def test_near_equal_optimisers_are_told_from_copies(shared, blocks, apart, passed):
    def prints(own: str, day: int, loss: float) -> Fingerprint:
        return Fingerprint(
            f"2026-01-0{day}",
            {f"{'a' if i < shared else own}{i}": loss for i in range(20)},
            {f"{'a' if i < blocks else own}{i}": loss for i in range(100)},
        )

    checks = check_copies([("first", prints("x", 1, 0.57)), ("second", prints("y", 2, 0.57 + apart))])
    assert checks["first"].passed and checks["second"].passed is passed
    assert ("first" in checks["second"].detail) is (blocks > 50)


def test_an_earlier_date_does_not_take_answers_from_a_verified_entry():
    one = {f"a{i}": 0.57 for i in range(20)}
    early, verified = Fingerprint("2020-01-01", one, one), Fingerprint("2026-01-02", one, one, trusted=True)
    checks = check_copies([("thief", early), ("author", verified)])
    assert checks["author"].passed and not checks["thief"].passed


def test_an_entry_that_was_not_run(board):
    shutil.rmtree(results(board))
    assert "em-bench submit run" in failed(board)["manifest.schema"]


def test_unreadable_names_of_entries_are_refused(board):
    (board.submissions / "Über").mkdir()
    with pytest.raises(UserError, match="not a name"):
        board.names()
