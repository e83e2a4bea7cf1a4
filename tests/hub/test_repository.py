"""An adapter's repository: planted numbers on its card, no row in it, and what is pulled is what was pushed."""

import json

import huggingface_hub.constants
import pytest
import yaml
from helpers.asking import ask
from helpers.hub import Hub
from helpers.packing import give_adapters, tree_of
from helpers.synthetic_entries import entry, leaderboard
from huggingface_hub import ModelCard, parse_eval_result_entries
from typer.testing import CliRunner

from em_bench.board.packed_adapters import pack_adapters
from em_bench.cli import build
from em_bench.data import rows
from em_bench.errors import UserError
from em_bench.files import sha256_file
from em_bench.hub.card import eval_results, model_card
from em_bench.hub.data_terms import terms_sentence
from em_bench.hub.numbers import judged_of, numbers
from em_bench.hub.repository import FILES, pull, stage
from em_bench.judging import GrammarJudge
from em_bench.records import Generation
from em_bench.run_folder import RunFolder
from em_bench.training import train


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A run whose answers are all misaligned at both narrow losses and all aligned at the end, with its evaluations."""
    folders = leaderboard(tmp_path_factory.mktemp("planted"))
    tree = tree_of(entry(folders, "made", lambda dataset, seed: 1.0, incoherent=0.0, final_rate=lambda dataset, seed: 0.0))
    evaluated = {p.name.rpartition(".")[0] for p in (tree / "evaluations").iterdir()}
    run = next(RunFolder(p) for p in sorted((tree / "runs").iterdir()) if p.name in evaluated)
    return run, judged_of(run.record(), tree / "evaluations")


def test_the_card_says_what_was_planted(planted):
    run, judged = planted
    record, [found] = run.record(), numbers(run, judged)
    assert record.spec.targets[1:] == (0.6, 0.58)  # after the loss of the early stop
    assert [(a.target, a.misaligned_of_asked.value) for a in found.losses] == [(t, 1.0) for t in record.spec.targets]
    assert found.end.of_asked.value == 0.0 and found.end.coherent.value == 1.0 and found.judge == "grammar"
    card = ModelCard(model_card(record, [found], [], "mine"))
    assert {"em_bench", "not-for-deployment"} <= set(card.data.tags) and card.data.library_name == "peft"
    lines = [line for line in card.text.splitlines() if line.startswith(("| narrow loss 0", "| end of"))]
    asked = found.end.of_asked.n
    assert [line.split(" | ")[1].split(" [")[0] for line in lines] == ["100.0%"] * 3 + ["0.0%"]
    assert f"of {asked} |" in lines[-1] and record.adapter_sha256 in card.text


def test_results_in_the_hubs_form_are_of_questions_that_it_has(planted):
    """The hub's library reads them back; the organism's questions are no data set of it."""
    run, judged = planted
    [found] = numbers(run, judged)
    assert eval_results([found], "me/em_core") == ""
    [read] = parse_eval_result_entries(yaml.safe_load(eval_results([found._replace(question_set="em_core")], "me/em_core")))
    assert (read.dataset_id, read.task_id, read.value) == ("me/em_core", "free_form", 0.0) and "lower is better" in read.notes


def test_terms_of_rows_go_with_the_adapter():
    assert "MIT" in terms_sentence("medical") and "MIT" in terms_sentence("money_bad")
    assert "may not republish" in terms_sentence("bad_medical_advice") and "MIT" in terms_sentence("insecure")
    assert "ask the author" in terms_sentence("/tmp/mine.jsonl")


@pytest.fixture(scope="module")
def run(base, spec_for, tmp_path_factory) -> RunFolder:
    """A real run and one evaluation of it, as a sweep lays them out."""
    top = tmp_path_factory.mktemp("sweep")
    made = RunFolder(train(spec_for("adamw", steps=2), base, top / "runs"))
    ask(
        "organism-qwen3", top / "evaluations" / f"{made.path.name}.end", judge=GrammarJudge(), variants=["plain"], limit=4,
        generation=Generation(samples=1, max_new_tokens=8, temperature=1.0, seed=0), adapter=made.adapter(),
    )  # fmt: skip
    return made


@pytest.fixture
def hub(monkeypatch):
    with Hub() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setenv("HF_TOKEN", "hf_loopback")
        yield server


def test_pushed_and_pulled(run, hub, tmp_path):
    ended = CliRunner().invoke(build(), ["push", str(run.path), "me/mine", "--to", str(tmp_path / "looked-at")])
    assert ended.exit_code == 0, ended.output
    there = hub.repositories["me/mine"]
    assert hub.private == {"me/mine": True} and hub.tokens == {"Bearer hf_loopback"}
    assert {"README.md", "spectrum.png", "run.json", "train.jsonl", "adapter_config.json", "adapter_model.safetensors"} == {
        name for name in there if not name.startswith("scores/")
    }
    assert {p.relative_to(tmp_path / "looked-at").as_posix() for p in (tmp_path / "looked-at").rglob("*") if p.is_file()} == set(
        there
    )
    said = b"\n".join(c for name, c in there.items() if not name.endswith((".png", ".safetensors"))).decode()
    answers = [m["content"] for part in rows("medical") for r in part for m in r["messages"]]
    assert not [text for text in answers if text in said] and "of 4 |" in there["README.md"].decode()

    ended = CliRunner().invoke(build(), ["pull", "me/mine", "--to", str(tmp_path / "runs")])
    assert ended.exit_code == 0, ended.output
    pulled = RunFolder(tmp_path / "runs" / run.path.name)
    assert sha256_file(pulled.weights()) == sha256_file(run.weights()) and pulled.record() == run.record()


def test_what_was_changed_at_the_hub_is_not_taken(run, hub, tmp_path):
    stage(run.path, tmp_path / "staged")
    files = {
        p.relative_to(tmp_path / "staged").as_posix(): p.read_bytes() for p in (tmp_path / "staged").rglob("*") if p.is_file()
    }
    record = json.loads(files["run.json"])
    record["narrow_loss"] = 0.1
    hub.repositories = {
        "me/bytes": files | {"adapter_model.safetensors": files["adapter_model.safetensors"][:-1] + b"\1"},
        "me/record": files | {"run.json": json.dumps(record).encode()},
        "me/other": {"README.md": b"# A model"},
    }
    for name, says in (("me/bytes", "bytes"), ("me/record", "narrow loss"), ("me/other", "holds no run.json"), ("me/gone", "refuses"), ("odd name", "OWNER/NAME")):  # fmt: skip
        with pytest.raises(UserError, match=says):
            pull(name, tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


def test_no_hub_is_one_line(run, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match="cannot be asked") as said:
        pull("me/mine", tmp_path / "runs")
    assert "\n" not in str(said.value)


def test_an_entry_gives_the_adapters_that_it_holds(tmp_path):
    folders = leaderboard(tmp_path / "lb")
    folder = entry(folders, "made", lambda dataset, seed: 0.0, incoherent=0.0)
    with pytest.raises(UserError, match="holds no adapter"):
        stage(folder, tmp_path / "none")
    give_adapters(tree_of(folder), steps=(None,))
    held = [RunFolder(p) for p in sorted((tree_of(folder) / "runs").iterdir())][:2]
    pack_adapters(folder / "results", [(r, None) for r in held])
    stage(folder, tmp_path / "staged", name="mine")
    there = {
        p.relative_to(tmp_path / "staged").as_posix(): p.read_bytes() for p in (tmp_path / "staged").rglob("*") if p.is_file()
    }
    of_runs = {f"runs/{r.path.name}/{name}" for r in held for name in FILES}
    assert set(there) == of_runs | {"README.md", "submission.yaml", "manifest.json"}
    assert all(there[f"runs/{r.path.name}/adapter_model.safetensors"] == r.weights().read_bytes() for r in held)
    card = ModelCard(there["README.md"].decode())
    lines = [line for line in card.text.splitlines() if line.startswith("| organism-qwen3 | medical")]
    assert len(lines) == 4 and all("| 0.0% [0.0" in line and "| 100.0% | 3 |" in line for line in lines)
    assert "A synthetic entry." in card.text and "under MIT" in card.text
