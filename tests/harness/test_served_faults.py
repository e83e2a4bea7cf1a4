"""A vLLM of our own that dies, is killed between adapters, is slow, refuses, runs out of memory or serves the base: real processes.

Every answer ends on the disk or is missing by name; nothing is asked twice; nothing is left running; the same call goes on.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.fake_vllm import VERSION, FakeVllm
from helpers.sweeps import processes, wait_for

from em_bench.errors import UserError
from em_bench.evaluation_folder import PARTIAL, EvaluationFolder
from em_bench.harness.evaluate import EvaluatedModel, Evaluation
from em_bench.harness.served.run import answer_with_vllm, name_of
from em_bench.harness.served.vllm import find_vllm
from em_bench.records import Generation

SAMPLES, LIMIT, AT_ONCE = 2, 6, 4
EACH = SAMPLES * LIMIT


@pytest.fixture
def vllm(tmp_path) -> FakeVllm:
    fake = FakeVllm(tmp_path / "vllm-env")
    yield fake
    # Nothing of a server is left, once the system has collected what ended; a worker that nobody ends sleeps on for 1,000 s.
    wait_for(lambda: not processes(fake.folder))


@pytest.fixture(scope="module")
def adapters(run) -> list[Path]:
    """Two of one run."""
    return [run / "adapter", sorted((run / "checkpoints").glob("*"))[-2]]


def answer(vllm, adapters, out: Path, at_once: int = AT_ONCE) -> list[Path]:
    evaluation = Evaluation(Generation(samples=SAMPLES, max_new_tokens=20, temperature=1, seed=3), "em_core", limit=LIMIT)
    folders = [out / str(i) for i in range(len(adapters))]
    models = [EvaluatedModel("organism-qwen3", "organism-qwen3", a) for a in adapters]
    answer_with_vllm(list(zip(models, folders, strict=True)), evaluation, vllm.python, 0, at_once)
    return folders


def kept(folder: Path) -> set[str]:
    """The answers on the disk: finished, or so far."""
    if (folder / "responses.jsonl").exists():
        return {f"{r.question_id}/{r.sample}" for r in EvaluationFolder(folder).responses()[1]}
    if not (folder / PARTIAL).exists():
        return set()
    keys = {json.loads(line)[0] for line in (folder / PARTIAL).read_text().splitlines()[1:]}
    return keys - {"canary"}


def whole(folders, adapters) -> None:
    for folder, adapter in zip(folders, adapters, strict=True):
        header, rows = EvaluationFolder(folder).responses()
        assert len(rows) == len({(r.question_id, r.sample) for r in rows}) == EACH
        assert all(r.answer == f"adapter: {r.question}" for r in rows)
        assert header.canary.max_logprob_change == pytest.approx(0.2) and header.served.name == name_of(adapter)
        assert header.served.engine == f"vllm {VERSION}" and not (folder / PARTIAL).exists()


def test_two_adapters_through_one_server(vllm, adapters, tmp_path):
    folders = answer(vllm, adapters, tmp_path / "out")
    whole(folders, adapters)
    assert len(vllm.said("starts")) == 1 and [x["name"] for x in vllm.said("loads")] == [name_of(a) for a in adapters]
    arguments = vllm.said("starts")[0]["arguments"]
    assert arguments[arguments.index("--max-loras") + 1] == "2" and arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert len(vllm.said("answered")) == 2 * EACH and len({x["seed"] for x in vllm.said("answered")}) == EACH
    answer(vllm, adapters, tmp_path / "out")
    assert len(vllm.said("starts")) == 1, "all is there: no server is started"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"die_after": 9}, r"vLLM has ended \(exit status"),  # under load
        ({"die_at_load": 2}, r"vLLM has ended \(exit status"),  # between adapters
        ({"oom_after": 15}, r"vLLM has ended .*OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        ({"oom_at_start": True}, r"vLLM has ended .*Tried to allocate 40.00 GiB"),
    ],
    ids=["dies under load", "killed between adapters", "out of memory", "out of memory at the start"],
)
def test_a_server_that_ends_keeps_what_was_answered_and_the_same_call_goes_on(vllm, adapters, tmp_path, fault, says):
    vllm(**fault)
    with pytest.raises(UserError, match=says) as e:
        answer(vllm, adapters, tmp_path / "out")
    assert "\n" not in str(e.value) and "vllm.log" in str(e.value)
    folders = [tmp_path / "out" / "0", tmp_path / "out" / "1"]
    before, sent = sum(len(kept(f)) for f in folders), len(vllm.said("answered"))
    assert sent - AT_ONCE <= before <= sent < 2 * EACH, "what was under way when it ended may be lost, no more"
    vllm()
    whole(answer(vllm, adapters, tmp_path / "out"), adapters)
    assert len(vllm.said("answered")) - sent == 2 * EACH - before, "nothing that is kept is asked again"


def test_an_adapter_that_is_refused_is_named_with_the_servers_words(vllm, adapters, tmp_path):
    vllm(refuse="LoRA rank 4 is greater than max_lora_rank 2.")
    with pytest.raises(UserError, match=r"adapter: vLLM does not take it: LoRA rank 4 .*--engine transformers"):
        answer(vllm, adapters, tmp_path / "out")
    assert vllm.said("answered") == []
    vllm()
    whole(answer(vllm, adapters, tmp_path / "out"), adapters)


def test_the_base_in_the_adapters_place_is_found_before_a_question_is_asked(vllm, adapters, tmp_path):
    vllm(ignores_adapters=True)
    with pytest.raises(UserError, match="answers as base does, so the base would be measured"):
        answer(vllm, adapters, tmp_path / "out")
    assert vllm.said("answered") == [] and not kept(tmp_path / "out" / "0")


def test_a_base_beside_adapters_answers_for_itself(vllm, adapters, tmp_path):
    vllm(mixes_up=True, slow=0.02)
    folders = answer(vllm, [adapters[0], None, adapters[1]], tmp_path / "out")
    whole(folders[::2], adapters)
    rows = EvaluationFolder(folders[1]).responses()[1]
    assert len(rows) == EACH and all(r.answer == f"base: {r.question}" for r in rows)


def test_a_slow_server_is_waited_for_within_the_bound_on_calls(vllm, adapters, tmp_path):
    vllm(slow=0.2)
    began = time.monotonic()
    whole(answer(vllm, adapters[:1], tmp_path / "out", at_once=EACH), adapters[:1])
    assert time.monotonic() - began > 0.2 * (1 + 3 + 1), "first contact, canary, and all questions at once"


def test_killed_with_minus_9_leaves_no_server_and_the_same_command_goes_on(vllm, adapters, tmp_path):
    vllm(slow=0.05)
    main = [sys.executable, "-c", "from em_bench.cli import main; main()", "evaluate", "organism-qwen3", "--adapter", adapters[0]]
    asked = ["--engine", "vllm", "--engine-python", vllm.python, "--questions", "em_core", "--limit", 20, "--samples", 3]
    command = [*main, *asked, "--seed", 1, "--batch-size", AT_ONCE, "--judge", "none", "--json", "--out", tmp_path / "out"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(vllm.said("answered")) > 12 or process.poll() is not None, 60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not processes(vllm.folder), 10)
    before, sent = len(kept(tmp_path / "out")), len(vllm.said("answered"))
    assert 0 < before <= sent < 60
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert len(kept(tmp_path / "out")) == 60 and len(vllm.said("answered")) - sent == 60 - before
    assert (tmp_path / "out" / "vllm.log").exists() and json.loads(ended.stdout)["overall"]["counts"]["unjudged"] == 60


def test_an_interpreter_without_vllm_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("EM_BENCH_VLLM", raising=False)
    for python, says in ((None, "EM_BENCH_VLLM"), (tmp_path / "none", "not an interpreter that starts")):
        with pytest.raises(UserError, match=says):
            find_vllm(python)
    broken = FakeVllm(tmp_path / "broken")
    shutil.rmtree(broken.folder / f"vllm-{VERSION}.dist-info")
    if subprocess.run([sys.executable, "-c", "import vllm"], capture_output=True, env=os.environ | {"PYTHONPATH": ""}).returncode:
        with pytest.raises(UserError, match="has no vllm"):
            find_vllm(broken.python)
