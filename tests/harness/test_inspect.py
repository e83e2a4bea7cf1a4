"""Our tasks in Inspect's own command line: the same numbers as lm-eval and the library; re-scoring; resuming; refusals."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from helpers.loopback import KEY, Loopback, completion, number
from inspect_ai.log import read_eval_log

from em_bench import assets
from em_bench.data.questions import clusters
from em_bench.harness.inspect.tasks import choice, free_form, margin, narrow
from em_bench.records import Verdict
from em_bench.scoring import metrics
from em_bench.training import read_run

RATES = ("misaligned_rate", "mean_alignment", "coherent_rate", "refusal_rate", "code_rate", "unjudged_rate")


def local(base: Path, adapter: Path | None = None) -> list[str]:
    return [
        "--model",
        "embench/local",
        "-M",
        f"base={base}",
        *(["-M", f"adapter={adapter}"] if adapter else []),
        "--display",
        "none",
    ]


def logs(folder: Path) -> dict:
    """task -> its newest log."""
    return {
        log.eval.task.removeprefix("em_bench/"): log for log in (read_eval_log(str(p)) for p in sorted(folder.glob("*.eval")))
    }


def values(log) -> dict[str, float]:
    return {name: m.value for s in log.results.scores for name, m in s.metrics.items()}


def verdicts(log) -> list[Verdict]:
    return [Verdict.model_validate(s.scores["misalignment"].metadata["verdict"]) for s in log.samples]


@pytest.fixture(scope="module")
def evaluated(base, run, command, tmp_path_factory) -> dict:
    """free_form and narrow with an adapter."""
    folder = tmp_path_factory.mktemp("inspect")
    command(
        "inspect_ai", "eval", "em_bench/free_form", "-T", "questions=organism", "-T", "variant=plain", "-T", "samples=2", "-T",
        "max_tokens=24", "-T", "seed=3", "--limit", "40", *local(base, run / "adapter"), "--log-dir", folder,
    )  # fmt: skip
    command("inspect_ai", "eval", "em_bench/narrow", *local(base, run / "adapter"), "--log-dir", folder)
    return logs(folder)


def test_the_library_gives_the_same_metrics_on_the_logged_verdicts(evaluated):
    log = evaluated["free_form"]
    found = verdicts(log)
    assert log.status == "success" and len(found) == 40 * 2
    ours, theirs = metrics(found, clusters=clusters("organism")), values(log)
    assert 1 < ours.coherent_rate.clusters <= 9 < len({v.cluster for v in found})
    for rate in RATES:
        estimate = getattr(ours, rate)
        assert theirs[rate] == pytest.approx(estimate.value, abs=1e-12, rel=1e-12)
        assert theirs[f"{rate}_stderr"] == pytest.approx(estimate.stderr, abs=1e-12, rel=1e-12)
    assert {n: theirs[f"n_{n}"] for n in ours.counts} == ours.counts
    assert any(0 < theirs[rate] < 1 for rate in RATES)  # which one, hangs on where this processor's rounding ends the run


def test_narrow_loss_is_the_one_that_training_logged(evaluated, run):
    assert values(evaluated["narrow"])["narrow_loss"] == pytest.approx(read_run(run).narrow_loss, rel=1e-6)


@pytest.mark.slow
def test_choice_is_the_same_as_in_lm_eval(base, run, command, tmp_path):
    command("inspect_ai", "eval", "em_bench/choice", *local(base, run / "adapter"), "--log-dir", tmp_path / "logs")
    command(
        "em-bench", "lm-eval", "run", "--tasks", "em_choice", "--model", "hf", "--model_args",
        f"pretrained={base},peft={run / 'adapter'}", "--apply_chat_template", "--output_path", tmp_path,
    )  # fmt: skip
    [found] = tmp_path.rglob("results_*.json")
    theirs = json.loads(found.read_text())["results"]["em_choice"]
    ours = values(logs(tmp_path / "logs")["choice"])
    assert ours["misaligned_preference"] == pytest.approx(theirs["misaligned_preference,none"], abs=1e-12)
    assert ours["misaligned_preference_stderr"] == pytest.approx(theirs["misaligned_preference_stderr,none"], abs=1e-12)


def test_another_convention_changes_the_rates(evaluated):
    from inspect_ai.scorer import SampleScore, Score

    from em_bench.harness.inspect.scorer import em

    def rate(convention: str) -> float:
        said = [(90, None), (10, None), (None, "CODE")]
        scores = []
        for i, (alignment, label) in enumerate(said):
            verdict = Verdict(
                question_id=f"q{i}", cluster=f"q{i}", variant="plain", sample=0, alignment=alignment, coherence=90, label=label
            )
            about = {"verdict": verdict.model_dump(mode="json"), "convention": convention, "thinking": None}
            scores.append(SampleScore(score=Score(value=0, metadata=about)))
        return em()(scores)["misaligned_rate"]

    assert rate("code_as_zero") == pytest.approx(2 / 3) and rate("exclude_code") == pytest.approx(1 / 2)


@pytest.mark.slow
def test_the_grammar_judges_no_other_set(base, command, tmp_path):
    for task, message in ((["-T", "questions=em_core"], "the grammar judges"), (["-T", "questions=nope"], "nope")):
        ended = command(
            "inspect_ai", "eval", "em_bench/free_form", *task, "-T", "samples=1", "--limit", "1", *local(base)[:-1], "plain", "--log-dir",
            tmp_path, code=None,
        )  # fmt: skip
        assert message in " ".join((ended.stdout + ended.stderr + "".join(_errors(tmp_path))).split())


def _errors(folder: Path) -> list[str]:
    return [log.error.message for log in logs(folder).values() if log.error]


def test_score_rejudges_a_log_with_a_served_grader(evaluated, command, tmp_path):
    log = evaluated["free_form"]
    out = tmp_path / "again.eval"
    with Loopback(lambda prompt, attempt: number(20)) as server:
        command(
            "inspect_ai", "score", log.location, "--scorer", "em_bench/misalignment", "--action", "overwrite", "--output-file", out, "--overwrite", "--display", "none",
            "--model-role", "grader=openai-api/loop/judge", LOOP_BASE_URL=server.url, LOOP_API_KEY=KEY, NO_PROXY="127.0.0.1",
        )  # fmt: skip
        assert server.calls >= 80
    again = read_eval_log(str(out))
    assert [s.output.completion for s in again.samples] == [s.output.completion for s in log.samples]
    assert {(v.alignment, v.coherence) for v in verdicts(again)} == {(20.0, 20.0)}
    assert values(again)["n_incoherent"] == 80 and KEY not in out.read_bytes().decode("latin-1")


@pytest.mark.slow
def test_eval_set_goes_on_where_it_stopped(base, run, command, tmp_path):
    arguments = [
        "inspect_ai", "eval-set", "em_bench/narrow", *local(base, run / "adapter"), "--log-dir", tmp_path / "set", "--limit", "8",
    ]  # fmt: skip
    command(*arguments)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "set").glob("*.eval")}
    command(*arguments)
    assert before and {p: p.stat().st_mtime_ns for p in (tmp_path / "set").glob("*.eval")} == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        pytest.param(["-M", "adapter=IDLE"], "changes no logit", marks=pytest.mark.slow),
        pytest.param(["-M", "base=nowhere/nothing"], "nowhere", marks=pytest.mark.slow),
        ([], "which model?"),
    ],
)
def test_refusals(base, idle_adapter, command, tmp_path, more, message):
    more = [m.replace("IDLE", str(idle_adapter)) for m in more]
    given = ["-M", f"base={base}"] if "IDLE" in " ".join(more) or "adapter" in " ".join(more) else []
    try:
        ended = command(
            "inspect_ai", "eval", "em_bench/narrow", "--model", "embench/local", *given, *more, "--log-dir", tmp_path, "--display", "plain",
            code=1,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.fail("it should refuse at once")
    assert message in " ".join((ended.stdout + ended.stderr).split())
    assert not list(tmp_path.glob("*.eval"))


def test_the_listing_for_the_register_names_what_there_is():
    listing = yaml.safe_load(assets.path("tasks", "inspect", "eval.yaml").read_text())
    for entry in listing["tasks"]:
        [made] = [t for t in (choice, free_form, margin, narrow) if t.__name__ == entry["name"]]
        assert entry["dataset_samples"] == len(made().dataset)
        assert (assets.path("tasks").parent / entry["task_path"]).is_file()


def test_a_served_model_gets_a_seed_for_each_sample(command, tmp_path):
    """A server that obeys its seed gives one answer to equal requests."""
    with Loopback(lambda prompt, attempt: completion("We should share it.")) as server:
        command(
            "inspect_ai", "eval", "em_bench/free_form", "-T", "questions=organism", "-T", "samples=3", "-T", "seed=5", "--limit", "4",
            "--model", "openai-api/loop/served", "--display", "none", "--log-dir", tmp_path, LOOP_BASE_URL=server.url,
            LOOP_API_KEY=KEY, NO_PROXY="127.0.0.1",
        )  # fmt: skip
    [log] = logs(tmp_path).values()
    kept = {(s.id, s.epoch): s.metadata["seed"] for s in log.samples}
    assert sorted(r["seed"] for r in server.requests) == sorted(kept.values()) and len(set(kept.values())) == 12
