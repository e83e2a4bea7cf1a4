"""How close answers of a served model come to the time that the server's latency allows.

    python benchmarks/served.py [--samples 20] [--latency 0.5] [--concurrency 64] [--rounds 2]

A loopback server in a process of its own answers every call after a fixed time: 100 questions x 20 samples are 2,000 answers, each of
which is on the disk before its place is given away. Ideal is answers / concurrency times latency: no work of either side. `direct` is the
same number of calls in the same minute by a bare HTTP client that reads nothing and keeps nothing. An answer costs 1 to 2 ms of one core here,
so a server faster than some 0.15 s at 64 at once would wait for us; models take seconds.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

from judging import GOAL, direct, serve

QUESTIONS = 100


def main() -> None:
    """Print each round and the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"

    from em_bench.evaluation_folder import EvaluationFolder
    from em_bench.harness.evaluate import EvaluatedModel, Evaluation
    from em_bench.harness.served.answers import Asked, Server, answer_served
    from em_bench.judging.options import Patience
    from em_bench.records import Generation

    calls = multiprocessing.Value("q", 0, lock=False)
    here, there = multiprocessing.Pipe()
    endpoint = multiprocessing.Process(target=serve, args=(options.latency, calls, there), daemon=True)
    endpoint.start()
    server = Server(f"http://127.0.0.1:{here.recv()}/v1", patience=Patience(timeout_s=60, concurrency=options.concurrency))
    evaluation = Evaluation(
        Generation(samples=options.samples, max_new_tokens=600, temperature=1.0, seed=0), "em_core", limit=QUESTIONS
    )
    answers = QUESTIONS * options.samples
    ideal = answers / options.concurrency * options.latency
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(options.rounds):
            bare = direct(server.url, answers, options.concurrency)
            out = Path(folder, str(i))
            asked = Asked(EvaluatedModel("", "model", dtype=""), "model", out)
            start, cpu = time.perf_counter(), time.process_time()
            answer_served([asked], evaluation, server)
            took, cpu = time.perf_counter() - start, time.process_time() - cpu
            assert len(EvaluationFolder(out).responses()[1]) == answers
            rounds.append(
                {
                    "answers_s": round(took, 3),
                    "over_ideal": round(took / ideal, 3),
                    "direct_over_ideal": round(bare / ideal, 3),
                    "cpu_ms_an_answer": round(cpu / answers * 1e3, 3),
                }
            )
    endpoint.terminate()
    settings = {k: v for k, v in vars(options).items() if k != "rounds"}
    best = min(r["over_ideal"] for r in rounds)
    print(json.dumps({**settings, "answers": answers, "ideal_s": ideal, "goal": GOAL, "best": best, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
