"""vLLM against transformers: the answers of several adapters on one base, by either engine. Goal on a GPU: 8 times the speed.

    python benchmarks/engines.py BASE ADAPTER... --engine-python VLLM/bin/python [--limit 48] [--samples 10] [--max-new-tokens 600]

transformers answers adapter by adapter, as `em-bench evaluate` does; vLLM gets all as one load. Starting the server and loading the base are
given by themselves, and so are the seconds that an adapter takes to be loaded into the server. On a CPU vLLM proves the path and is no gain.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from em_bench.data.models import base_path, default_dtype
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.harness.evaluate import EvaluatedModel, Evaluation, evaluate
from em_bench.harness.load_model import load_model
from em_bench.harness.served.answers import Asked, answer_served
from em_bench.harness.served.run import name_of
from em_bench.harness.served.vllm import Engine, find_vllm, vllm_server
from em_bench.judging import NONE, make_judge
from em_bench.judging.loop import finish
from em_bench.records import Generation

GOAL = 8


def main() -> None:
    """Print seconds, tokens a second and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("adapters", nargs="+", type=Path)
    parser.add_argument("--engine-python", type=Path)
    parser.add_argument("--limit", type=int, default=48)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--max-new-tokens", type=int, default=600)
    parser.add_argument("--at-once", type=int, default=64)
    given = parser.parse_args()
    dtype = default_dtype(given.base)
    generation = Generation(samples=given.samples, max_new_tokens=given.max_new_tokens, temperature=1.0, seed=0)
    evaluation = Evaluation(generation, "em_core", limit=given.limit, batch_size=given.at_once)
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    loaded = load_model(base_path(given.base), dtype=dtype)
    seconds["load transformers"] = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as work:
        out = {engine: [Path(work, engine, str(i)) for i in range(len(given.adapters))] for engine in ("transformers", "vllm")}
        began = time.perf_counter()
        for adapter, folder in zip(given.adapters, out["transformers"], strict=True):
            evaluate(EvaluatedModel(given.base, given.base, adapter, loaded), evaluation, make_judge(NONE), folder)
        seconds["transformers"] = time.perf_counter() - began
        tokenizer = loaded.tokenizer
        del loaded
        python, version = find_vllm(given.engine_python)
        engine = Engine(python, version, Path(work, "vllm.log"), dtype, torch.cuda.device_count(), given.at_once)
        began = time.perf_counter()
        with vllm_server(base_path(given.base), given.adapters, engine) as server:
            seconds["start vllm"] = time.perf_counter() - began
            swaps = []
            for adapter in given.adapters:
                began = time.perf_counter()
                finish(server.load(name_of(adapter), adapter))
                swaps.append(round(time.perf_counter() - began, 3))
            of = [EvaluatedModel(given.base, given.base, a, dtype=dtype) for a in given.adapters]
            asked = [Asked(m, name_of(a), f) for m, a, f in zip(of, given.adapters, out["vllm"], strict=True)]
            began = time.perf_counter()
            answer_served(asked, evaluation, server)
            seconds["vllm"] = time.perf_counter() - began
        tokens = {
            name: sum(len(tokenizer(r.answer).input_ids) for f in folders for r in EvaluationFolder(f).responses()[1])
            for name, folders in out.items()
        }
    speed = {name: round(n / seconds[name], 1) for name, n in tokens.items()}
    print(
        json.dumps(
            {
                "base": given.base,
                "dtype": dtype,
                "gpus": torch.cuda.device_count(),
                "threads": torch.get_num_threads(),
                "vllm": version,
                "adapters": len(given.adapters),
                "answers": len(given.adapters) * len(evaluation.asked()) * given.samples,
                "seconds": {k: round(v, 1) for k, v in seconds.items()},
                "swap_s": swaps,
                "tokens_per_s": speed,
                "ratio": round(speed["vllm"] / speed["transformers"], 2),
                "goal_on_a_gpu": GOAL,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
