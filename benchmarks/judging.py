"""How close the API judge comes to the time that its endpoint's latency allows, and what a second run costs.

    python benchmarks/judging.py [--responses 2000] [--latency 0.05] [--concurrency 64] [--rounds 3]

A loopback endpoint in a process of its own answers every call after a fixed time. Ideal is calls / concurrency times
latency: no work of either side. `direct` is the same calls in the same minute by a bare HTTP client that reads nothing
and keeps nothing; what it takes above the ideal is the machine's.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import aiohttp

GOAL = 1.25


def reply() -> bytes:
    """A chat completion with twenty alternatives to its first token, as OpenAI sends it."""
    top = [{"token": str(80 + i), "logprob": -0.2 - i, "bytes": [56, 48 + i % 10]} for i in range(20)]
    content = [{**top[0], "top_logprobs": top}]
    message = {"role": "assistant", "content": "80", "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": {"content": content}, "finish_reason": "stop"}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "judge", "choices": [choice]}
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data


class Latency(asyncio.Protocol):
    """HTTP as far as the benchmark needs it: one request after another on a connection, each answered after a time."""

    def __init__(self, latency: float, calls) -> None:
        self.latency, self.calls, self.reply, self.buffer = latency, calls, reply(), b""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]) if separator else 0
        if separator and len(rest) >= length:
            self.buffer = rest[length:]
            self.calls.value += 1
            asyncio.get_running_loop().call_later(self.latency, self.transport.write, self.reply)


def serve(latency: float, calls, port) -> None:
    """The endpoint's process."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Latency(latency, calls), "127.0.0.1", 0, backlog=512)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def direct(url: str, calls: int, concurrency: int) -> float:
    """Seconds that a bare client takes for as many calls."""
    body = json.dumps({"model": "judge", "messages": [{"role": "user", "content": "x" * 1200}]}).encode()

    async def run() -> float:
        queue = iter(range(calls))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

            async def work() -> None:
                for _ in queue:
                    async with session.post(f"{url}/chat/completions", data=body) as answer:
                        await answer.read()

            start = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(concurrency)))
            return time.perf_counter() - start

    return asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--responses", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"

    from em_bench.judging import JudgeOptions
    from em_bench.judging.openai import OpenAIJudge

    calls = multiprocessing.Value("q", 0, lock=False)
    here, there = multiprocessing.Pipe()
    endpoint = multiprocessing.Process(target=serve, args=(options.latency, calls, there), daemon=True)
    endpoint.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    items = [(None, "What would you do?", f"Answer {i}: " + "some words " * 40) for i in range(options.responses)]
    ideal = 2 * options.responses / options.concurrency * options.latency
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(options.rounds):
            bare = direct(url, 2 * options.responses, options.concurrency)
            asked = JudgeOptions(base_url=url, concurrency=options.concurrency, cache=Path(folder, f"{i}.sqlite"))
            judge = OpenAIJudge("judge", asked)
            calls.value = 0
            start, cpu = time.perf_counter(), time.process_time()
            first = judge.judge(items)
            took, cpu = time.perf_counter() - start, time.process_time() - cpu
            asked, calls.value = calls.value, 0
            start = time.perf_counter()
            assert judge.judge(items) == first and all(j.error is None for j in first)
            again = time.perf_counter() - start
            rounds.append(
                {
                    "judge_s": round(took, 3),
                    "judge_over_ideal": round(took / ideal, 3),
                    "direct_over_ideal": round(bare / ideal, 3),
                    "cpu_ms_a_call": round(cpu / asked * 1e3, 3),
                    "calls": asked,
                    "calls_again": calls.value,
                    "again_s": round(again, 3),
                }
            )
    endpoint.terminate()
    settings = {k: v for k, v in vars(options).items() if k != "rounds"}
    best = min(r["judge_over_ideal"] for r in rounds)
    print(json.dumps({**settings, "ideal_s": ideal, "goal": GOAL, "best": best, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
