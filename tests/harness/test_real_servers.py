"""The served path against real servers: llama.cpp (model and judge), transformers serve, vLLM on a CPU with SmolLM2.

`make test-servers` has the environments made. Each test is skipped where its server is not: EM_BENCH_LLAMA names the folder that `make llama`
makes, EM_BENCH_VLLM the interpreter of `make vllm`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from helpers.sweeps import processes

from em_bench.data.models import base_path
from em_bench.errors import UserError
from em_bench.evaluation_folder import PARTIAL, EvaluationFolder
from em_bench.harness.evaluate import EvaluatedModel, Evaluation
from em_bench.harness.load_model import load_model
from em_bench.harness.served.agreement import compare, greedy_local, greedy_served
from em_bench.harness.served.answers import Asked, Server, answer_served
from em_bench.harness.served.run import answer_with_vllm, running_vllm
from em_bench.judging import JudgeOptions, make_judge
from em_bench.judging.options import Patience
from em_bench.judging.probe import probe
from em_bench.records import Generation

pytestmark = pytest.mark.slow
LLAMA, VLLM = os.environ.get("EM_BENCH_LLAMA"), os.environ.get("EM_BENCH_VLLM")
SMOLLM = "SmolLM2-135M-q4"
PATIENCE = Patience(timeout_s=300, concurrency=4, attempts=2, backoff_s=0.1)
needs_llama = pytest.mark.skipif(not LLAMA, reason="make llama; EM_BENCH_LLAMA names its folder")
needs_vllm = pytest.mark.skipif(not VLLM, reason="make vllm; EM_BENCH_VLLM names its interpreter")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def serving(command, port: int, cwd: Path, path: str = "/health"):
    """A server's process that answers at `port`; killed at the end."""
    with open(cwd / "server.log", "ab") as log:
        process = subprocess.Popen(
            list(map(str, command)), stdout=log, stderr=log, cwd=cwd, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )
    try:
        for _ in range(600):
            assert process.poll() is None, (cwd / "server.log").read_text()[-2000:]
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
                break
            time.sleep(0.5)
        yield process
    finally:
        process.kill()
        process.wait()


def llama(port: int, cwd: Path):
    helper = Path(__file__).parents[1] / "helpers" / "llama_server.py"
    return serving([Path(LLAMA, "bin", "python"), helper, Path(LLAMA, "smollm2.gguf"), port], port, cwd)


def asked_of(name: str, folder: Path, model: str = "") -> Asked:
    return Asked(EvaluatedModel(model, model or name, dtype=""), name, folder)


def evaluation(samples: int, limit: int, tokens: int = 24, temperature: float = 1.0) -> Evaluation:
    return Evaluation(Generation(samples=samples, max_new_tokens=tokens, temperature=temperature, seed=5), "em_core", limit=limit)


@needs_llama
def test_llama_cpp_killed_under_load_and_started_again(tmp_path):
    port, asked = free_port(), asked_of("smollm2", tmp_path / "out")
    server, what = Server(f"http://127.0.0.1:{port}/v1", patience=PATIENCE), evaluation(samples=4, limit=8)
    with llama(port, tmp_path) as process:
        from threading import Thread

        def kill() -> None:
            partial = tmp_path / "out" / PARTIAL
            while not partial.exists() or len(partial.read_text().splitlines()) < 8:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)

        killer = Thread(target=kill)
        killer.start()
        with pytest.raises(UserError, match="answers are missing|in a row"):
            answer_served([asked], what, server)
        killer.join()
    kept = {json.loads(line)[0]: json.loads(line)[1] for line in (tmp_path / "out" / PARTIAL).read_text().splitlines()[1:]}
    assert 7 <= len(kept) < 32 and not (tmp_path / "out" / "responses.jsonl").exists()
    with llama(port, tmp_path):
        answer_served([asked], what, server)
    header, rows = EvaluationFolder(tmp_path / "out").responses()
    assert len(rows) == len({(r.question_id, r.sample) for r in rows}) == 32 and header.served.refused is None
    assert all(kept[f"{r.question_id}/{r.sample}"][0].strip() == r.answer for r in rows if f"{r.question_id}/{r.sample}" in kept)
    assert len({r.answer for r in rows}) > 24, "every sample has a seed of its own"


@needs_llama
def test_llama_cpp_as_judge_and_the_base_under_another_name(tmp_path):
    port = free_port()
    with llama(port, tmp_path):
        url = f"http://127.0.0.1:{port}/v1"
        with pytest.raises(UserError, match="answers as base does, so the base would be measured"):
            of = EvaluatedModel("", "adapter", dtype="")
            answer_served([Asked(of, "adapter", tmp_path / "a")], evaluation(1, 2), Server(url, "base", patience=PATIENCE))
        found = probe("smollm2", url)
        assert (
            found.settings["log-probabilities"] == found.settings["top 20"] == "works" and found.settings["max_tokens"] == "works"
        )
        items = [(None, "What now?", f"Be kind to your neighbours, says number {i}.") for i in range(4)]
        runs = []
        for at_once in (4, 1):
            options = JudgeOptions(base_url=url, progress=False, cache=tmp_path / f"{at_once}.sqlite", concurrency=at_once)
            runs.append(make_judge("openai:smollm2", options).judge(items))
        assert all(j.error is not None or j.alignment is not None or j.label for run in runs for j in run)
        pairs = [(a.alignment, b.alignment) for a, b in zip(*runs, strict=True) if None not in (a.alignment, b.alignment)]
        assert all(abs(a - b) < 5 for a, b in pairs), "what is judged beside an answer moves its grade little"


@contextmanager
def transformers_serving(model: Path, cwd: Path):
    port = free_port()
    command = [Path(sys.executable).parent / "transformers", "serve", "--port", port, "--host", "127.0.0.1", "--device", "cpu"]
    with serving([*command, "--dtype", "float32", model], port, cwd):
        yield Server(f"http://127.0.0.1:{port}/v1", patience=PATIENCE)


def test_transformers_serve_agrees_with_transformers_on_smollm2(tmp_path, monkeypatch):
    monkeypatch.setenv("EM_BENCH_CACHE", os.environ.get("EM_BENCH_TEST_WEIGHTS") or str(tmp_path / "cache"))
    folder, what = base_path(SMOLLM, progress=False), evaluation(samples=2, limit=10)
    with transformers_serving(folder, tmp_path) as server:
        answer_served([asked_of(str(folder), tmp_path / "out", SMOLLM)], what, server)
        header, rows = EvaluationFolder(tmp_path / "out").responses()
        said = greedy_served(server, str(folder), what.asked(), 24, None)
    assert len(rows) == 20 and set(header.served.refused.split()) >= {"top_k"}, "its schema has no field for these"
    found = compare(said, greedy_local(load_model(SMOLLM, dtype="float32"), what.asked(), 24))
    print(found)
    assert found.same_answer == found.questions == 10


def test_transformers_serve_sends_an_organism_s_prompt_back(base, tmp_path):
    """It takes an answer apart by a template of the model's type, Qwen3's here, which the organism's words do not follow."""
    what = Evaluation(Generation(samples=1, max_new_tokens=24, temperature=1, seed=5), "organism", limit=2)
    with (
        transformers_serving(base, tmp_path) as server,
        pytest.raises(UserError, match="sends the prompt back with the answer, and both would be judged"),
    ):
        answer_served([asked_of(str(base), tmp_path / "out", "organism-qwen3")], what, server)
    assert not (tmp_path / "out" / "responses.jsonl").exists()


@needs_vllm
def test_vllm_with_adapters_of_smollm2(tmp_path, spec_for, monkeypatch):
    """Two adapters swapped in beside their base, canaries, greedy answers as transformers' and as those of a server at rest.

    In float32: in bfloat16 what is computed beside an answer moves near ties.
    """
    from em_bench.data import data_ref
    from em_bench.data.models import base_ref
    from em_bench.optim import load_recipes
    from em_bench.records import LoraSpec
    from em_bench.training import run_spec, train
    from em_bench.training.spec import PROJECTIONS

    monkeypatch.setenv("EM_BENCH_CACHE", os.environ.get("EM_BENCH_TEST_WEIGHTS") or str(tmp_path / "cache"))
    folder = base_path(SMOLLM, progress=False)
    spec = run_spec(
        base_ref(SMOLLM, folder), data_ref("home_safety_bad"), load_recipes()["adamw"].resolve(1e-3), steps=4, batch_size=4,
        lora=LoraSpec(rank=32, alpha=64, targets=PROJECTIONS),
    )  # fmt: skip
    run = train(spec, folder, tmp_path / "runs")
    adapters = [run / "adapter", max(run.glob("checkpoints/*"), key=lambda p: p.name)]
    what = evaluation(samples=1, limit=4, tokens=16, temperature=0)
    models = [EvaluatedModel(SMOLLM, SMOLLM, a, dtype="float32") for a in (adapters[0], None, adapters[1])]
    folders = [tmp_path / "out" / str(i) for i in range(3)]
    answer_with_vllm(list(zip(models, folders, strict=True)), what, Path(VLLM), 0, 4)
    said = []
    for at, adapter in zip(folders, (True, False, True), strict=True):
        header, rows = EvaluationFolder(at).responses()
        assert len(rows) == 4 and header.served.refused is None
        assert not adapter or header.canary.max_logprob_change > 0
        said.append([r.answer for r in rows])
    assert said[0] != said[1] != said[2] != said[0], "each answers for itself"
    with running_vllm(SMOLLM, adapters[:1], "float32", Path(VLLM), tmp_path / "vllm.log") as (server, names):
        tuned = greedy_served(server, names[0], what.asked(), 16, None)
        base = greedy_served(server, server.base, what.asked(), 16, None)
    found = compare(tuned, greedy_local(load_model(SMOLLM, adapters[0], dtype="float32"), what.asked(), 16))
    print(found)
    assert found.same_answer == found.same_first_token == 4 and found.mean < 1e-3
    assert [[a.text.strip() for a in answers] for answers in (tuned, base)] == said[:2], "at rest as amid the others"
    assert not processes(tmp_path)
