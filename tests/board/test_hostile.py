"""Hostile input, second round (docs/LOG.md): an entry whose every hash is in line, one that would break the page, one without end."""

import contextlib
from pathlib import Path
from random import Random

import pytest
import yaml
from helpers.spoilt_entries import edit, evaluation, failed, lines, results, run
from helpers.synthetic_entries import relink, reseal
from typer.testing import CliRunner

from em_bench.board import board as boards
from em_bench.board.board import Folders, judge_entry, read_board
from em_bench.board.ledger import take
from em_bench.board.publish import publish, to_csv
from em_bench.cli import build
from em_bench.errors import UserError
from em_bench.files import sha256_file


def relog(folder: Path) -> None:
    edit(folder / "run.json", lambda r: r.update(log_sha256=sha256_file(folder / "train.jsonl")))


def built(board) -> dict[str, str]:
    """The status of every entry after a whole build of the site."""
    made = read_board(board, "v2", "organism")
    publish(made, board, board.submissions.parent / "board.json", board.submissions.parent / "site")
    for row in made.rows:
        assert (board.submissions.parent / "site" / "entries" / f"{row.name}.html").is_file()
    return {r.name: r.status for r in made.rows}


# ---- one entry is never everybody's ------------------------------------------------------------------------------


def test_a_curve_of_one_value_costs_no_page(board):
    one = {"mean": [1], "lower_quartile": [1], "upper_quartile": [1]}
    edit(results(board, "lazy") / "manifest.json", lambda m: [c.update(spectrum=one) for c in m["cells"]])
    assert built(board)["adamw"] == "self-reported"


def test_losses_beyond_all_measure_cost_that_entry(board):
    folder = run(board, "lazy")
    for i in range(1, 9):
        lines(folder / "train.jsonl", i, lambda r: r.update(loss=1.7e308, held_out_loss=r["held_out_loss"] and 1.7e308))
    edit(folder / "run.json", lambda r: r.update(narrow_loss=1.7e308))
    relog(folder)
    reseal(board.submissions / "lazy")
    assert "not between" in " ".join(failed(board, "lazy").values())
    assert built(board) == {"adamw": "self-reported", "better": "self-reported", "lazy": "failed"}


def test_losses_that_no_model_has(board):
    folder = run(board, "lazy")
    lines(folder / "train.jsonl", 3, lambda r: r.update(loss=1e29))
    relog(folder)
    reseal(board.submissions / "lazy")
    assert "a loss beyond" in failed(board, "lazy")["run.loss"]


def test_a_page_that_cannot_be_made_costs_that_entry(board, monkeypatch):
    whole = boards.detail_of
    monkeypatch.setattr(boards, "detail_of", lambda entry, tier: 1 / 0 if entry.folder.name == "lazy" else whole(entry, tier))
    made = {r.name: r for r in read_board(board, "v2", "organism").rows}
    assert made["lazy"].status == "failed" and made["lazy"].checks[-1].id == "entry.page"
    assert made["adamw"].status == made["better"].status == "self-reported"


@pytest.mark.parametrize("number", ["0x" + "f" * 20_000, "1e400"])
def test_a_number_of_twenty_thousand_digits(board, number):
    path = board.submissions / "lazy" / "submission.yaml"
    path.write_text(path.read_text().replace("kwargs: {}", "kwargs: {betas: " + number + "}"))
    assert "submission.yaml" in failed(board, "lazy")["folder.contents"]
    assert built(board)["adamw"] == "self-reported"


# ---- strict records ----------------------------------------------------------------------------------------------


def twice(path: Path, key: str) -> None:
    text = path.read_text()
    path.write_text(text.replace("{", '{"' + key + '": null,', 1))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("run", lambda r: r.update(narrow_loss=str(r["narrow_loss"]))),
        ("run", lambda r: r["spec"].update(seed="0")),
        ("run", lambda r: r["spec"].update(seed=0.0)),
        ("run", lambda r: r.update(left_out_rows=True)),
        ("run", lambda r: r.update(left_out_rows=10**400)),
        ("run", lambda r: r.update(run_id="x" * 5000)),
        ("run", lambda r: r.update(wall_s=6.4e10)),
        ("run", lambda r: r.update(started="0001-01-01T00:00:00+00:00")),
        ("run", lambda r: r["machine"].update(cpu="x" * 12_000_000)),
        ("run", lambda r: r["machine"].update(cpu="a\x1b[2Jb")),
        ("run", lambda r: r["machine"].update(cpu="a\u202eb")),
        ("run", lambda r: r["machine"].update(cpu="a\u3164b")),
        ("run", lambda r: r["spec"].update(code="older-trainer")),
        ("score", lambda s: s["overall"]["counts"].update(aligned=-0.0)),
        ("score", lambda s: s.update(narrow_loss="0.57")),
        ("manifest", lambda m: m["cells"][0].update(seed="0")),
        ("manifest", lambda m: m["cells"][0]["spectrum"].update(mean=[1.0] + [0.5] * 200_000)),
        ("manifest", lambda m: m["cells"][0]["spectrum"].update(mean=[1.0])),
        ("manifest", lambda m: m["machine"].update(python="3\n11")),
    ],
)
def test_values_that_are_refused(board, file, change):
    rules = board.benchmarks / "v2.json"
    edit(rules, lambda r: r.update(training_code=["synthetic"]))
    assert failed(board) == {}
    path = {"run": run(board) / "run.json", "score": evaluation(board) / "score.json"}.get(file, results(board) / "manifest.json")
    edit(path, change)
    if file != "manifest":
        reseal(board.submissions / "adamw")
    assert failed(board)


@pytest.mark.parametrize("file", ["manifest.json", "run", "score", "verdicts"])
def test_a_key_that_stands_twice(board, file):
    paths = {
        "run": run(board) / "run.json",
        "score": evaluation(board) / "score.json",
        "verdicts": evaluation(board) / "verdicts.jsonl",
    }
    path = paths.get(file, results(board) / file)
    twice(path, "schema_version")
    if file != "manifest.json":
        reseal(board.submissions / "adamw")
    assert "stands twice" in " ".join(failed(board).values())


def test_minus_zero_is_no_count(board):
    path = evaluation(board) / "score.json"
    path.write_text(path.read_text().replace('"code": 0', '"code": -0', 1))
    reseal(board.submissions / "adamw")
    assert "score.recomputed" in failed(board) or "score.link" in failed(board)


def test_an_answer_longer_than_its_tokens(board):
    folder = evaluation(board)
    lines(folder / "responses.jsonl", 3, lambda r: r.update(answer="x" * 6_600_000))
    relink_or_not(folder)
    reseal(board.submissions / "adamw")
    assert failed(board)
    lines(folder / "responses.jsonl", 3, lambda r: r.update(answer="x" * 20_000))
    relink(folder)
    reseal(board.submissions / "adamw")
    assert "longer than" in failed(board)["responses.questions"]


def relink_or_not(folder: Path) -> None:
    with contextlib.suppress(UserError):
        relink(folder)


# ---- submission.yaml ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"optimizer": {"library": "torch.optim.Аdam"}}, "library"),  # a Cyrillic A
        ({"optimizer": {"library": "torch.optim.Nothing"}}, "no such optimiser"),
        ({"optimizer": {"library": "nothing_at_all"}}, "no such optimiser"),
        ({"authors": ["\u3164"]}, "authors"),
        ({"authors": ["\u2800\u2800"]}, "authors"),
        ({"authors": ["..."]}, "authors"),
        ({"authors": ["Z\u0300\u0301\u0302\u0303\u0304\u0305"]}, "authors"),
        ({"licence": "a\u200bb"}, "licence"),
        ({"description": "a\u202eb"}, "description"),
        ({"learning_rate": "0.001"}, "learning_rate"),
        ({"optimizer": {"library": "torch.optim.AdamW", "kwargs": {"betаs": 1}}}, "kwargs"),
    ],
)
def test_text_that_misleads(board, change, says):
    path = board.submissions / "adamw" / "submission.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change, allow_unicode=True))
    assert says in failed(board)["folder.contents"]


def test_merge_keys(board):
    path = board.submissions / "adamw" / "submission.yaml"
    path.write_text(path.read_text().replace("kwargs: {}", "kwargs: {<<: {lr: 1}}"))
    assert "merge keys" in failed(board)["folder.contents"]


def test_formulas_in_full_width_are_quoted(board):
    made = read_board(board, "v2", "organism").rows
    for odd in ("=1+1", "\uff1d1+1", "  =1+1", "\ufe62x", "|x"):
        row = made[0].model_copy(update={"created": odd})
        assert "'" + odd in to_csv([row])


# ---- what lies beside entries, and names -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".gitattributes", "run.sh", ".github", "link", "con"])
def test_what_lies_beside_the_entries(board, name):
    path = board.submissions / name
    if name == "link":
        path.symlink_to("/etc")
        assert judge_entry(board, "link").status == "failed"
        return
    path.mkdir() if name in (".github", "con") else path.write_text("* text=auto")
    with pytest.raises(UserError, match="beside the entries|not a name of an entry"):
        board.names()


@pytest.mark.parametrize("name", ["con.json", "nul.md", "AUX.json", "com1.x.json", "a b.json"])
def test_names_that_are_devices(board, name):
    (results(board) / name).write_text("{}")
    assert "a name is printable ASCII" in failed(board)["folder.contents"]


# ---- the chain ---------------------------------------------------------------------------------------------------


def test_a_readme_is_named_by_the_manifest(board):
    path = board.submissions / "adamw" / "README.md"
    path.write_text("Mine.")
    assert "README.md is not the one" in failed(board)["manifest.schema"]
    edit(results(board) / "manifest.json", lambda m: m.update(readme_sha256=sha256_file(path)))
    assert failed(board) == {}
    path.write_text("Mind.")
    assert "README.md is not the one" in failed(board)["manifest.schema"]


@pytest.fixture
def ledgered(board) -> Folders:
    """An entry with a readme, and a ledger that names its manifest."""
    folder = board.submissions / "lazy"
    (folder / "README.md").write_text("What it is, in words.")
    edit(folder / "results" / "manifest.json", lambda m: m.update(readme_sha256=sha256_file(folder / "README.md")))
    take(board.ledger, "lazy", sha256_file(folder / "results" / "manifest.json"))
    assert judge_entry(board, "lazy").status == "self-reported"
    return board


def test_every_changed_bit_of_an_entry_is_seen(ledgered):
    """300 bits over all kinds of files."""
    kinds = {}
    for p in sorted(p for p in (ledgered.submissions / "lazy").rglob("*") if p.is_file()):
        kinds.setdefault(p.name, []).append(p)
    assert len(kinds) == 6
    rng, unseen = Random(20), []
    for i in range(300):
        path = rng.choice(kinds[sorted(kinds)[i % len(kinds)]])
        whole = path.read_bytes()
        at, bit = rng.randrange(len(whole)), rng.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        if not verify_quickly(ledgered, "lazy"):
            unseen.append((path.name, at, bit))
        path.write_bytes(whole)
    assert unseen == [] and verify_quickly(ledgered, "lazy") == set()


def verify_quickly(folders: Folders, name: str) -> set[str]:
    """The failed checks of the row, without those that come after the hashes of all files."""
    from em_bench.board import verify as module

    kept = module.run_checks, module.answer_checks
    module.run_checks = module.answer_checks = lambda *a, **k: []
    try:
        verified = module.verify_entry(folders.submissions / name, folders.benchmarks)
        row = boards._row(verified, None, boards.read_ledger(folders.ledger, name))
    finally:
        module.run_checks, module.answer_checks = kept
    return {c.id for c in row.checks if not c.passed}


def test_a_manifest_that_is_not_the_ledgers_fails_the_command(ledgered):
    edit(results(ledgered, "lazy") / "manifest.json", lambda m: m["cells"][0]["spectrum"]["mean"].__setitem__(-1, 0.0))
    said = CliRunner().invoke(build(), ["leaderboard", "verify", "lazy", "--leaderboard", str(ledgered.submissions.parent)])
    assert said.exit_code == 1
    assert "FAIL  ledger.manifest: " in said.stdout and "1 failed, failed" in said.stdout
