"""An environment whose `vllm` serves made-up answers over real HTTP, in a process of its own, and misbehaves as it is told.

What it is told is read anew at every request, from behaviour.json; what it answered is in answered.jsonl, a line written before the reply
goes out. The server is of the standard library alone and starts in a moment.
"""

import json
import os
import sys
from pathlib import Path

from em_bench.data.questions import load
from em_bench.organism.language import answer_text, answers

VERSION = "0.0.1+fake"

MAIN = """
import json, math, os, signal, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parents[3]
LOCK, LOADED, LOADS, SERVED, UNDER_WAY = threading.Lock(), {}, [], [], []


def told(name, default=None):
    return json.loads((HERE / "behaviour.json").read_text()).get(name, default)


def note(file, **said):
    with LOCK, open(HERE / file, "a") as out:
        out.write(json.dumps(said) + chr(10))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.reply(200, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        getattr(self, self.path.split("/")[-1])(body)

    def load_lora_adapter(self, body):
        LOADS.append(body["lora_name"])
        if len(LOADS) == told("die_at_load"):
            os.kill(os.getpid(), signal.SIGKILL)
        if told("refuse"):
            return self.reply(400, {"object": "error", "message": told("refuse"), "code": 400})
        assert (Path(body["lora_path"]) / "adapter_model.safetensors").is_file()
        LOADED[body["lora_name"]] = body["lora_path"]
        note("loads.jsonl", name=body["lora_name"], path=body["lora_path"])
        self.reply(200, {})

    def unload_lora_adapter(self, body):
        self.reply(200 if LOADED.pop(body["lora_name"], None) else 404, {})

    def completions(self, body):
        name, prompt = body["model"], body["messages"][-1]["content"]
        if name != "base" and name not in LOADED:
            return self.reply(404, {"error": {"message": f"The model {name} does not exist."}})
        UNDER_WAY.append(name)
        beside = set(UNDER_WAY)
        time.sleep(told("slow", 0))
        beside |= set(UNDER_WAY)
        UNDER_WAY.remove(name)
        if len(SERVED) >= told("die_after", float("inf")):
            os.kill(os.getpid(), signal.SIGKILL)
        if len(SERVED) >= told("oom_after", float("inf")):  # two threads may pass the number at once
            print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", flush=True)
            os._exit(1)
        mixed_up = told("mixes_up", False) and beside != {"base"}  # as vLLM's kernels for a CPU
        adapted = (name != "base" or mixed_up) and not told("ignores_adapters")
        texts = told("answers", {}).get(prompt)
        text = texts[adapted] if texts else f"{'adapter' if adapted else 'base'}: {prompt}"
        if body.get("max_tokens") == 1:
            text = text.split()[0]
        first = {"log": -0.1 if adapted else -0.3, "other": -3.0}
        top = [{"token": t, "logprob": p, "bytes": None} for t, p in first.items()]
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        elif body.get("max_tokens") != 1:
            SERVED.append(prompt)
            note("answered.jsonl", model=name, prompt=prompt, seed=body.get("seed"))
        self.reply(200, {"id": "c", "object": "chat.completion", "created": 1, "model": name, "choices": [choice]})

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    assert sys.argv[1] == "serve"
    note("starts.jsonl", arguments=sys.argv[2:])
    if told("oom_at_start"):
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 40.00 GiB.", flush=True)
        sys.exit(1)
    subprocess.Popen(["sleep", "1000"], cwd=HERE)  # its workers, which outlive a server that is killed
    port = int(sys.argv[sys.argv.index("--port") + 1])
    Server(("127.0.0.1", port), Handler).serve_forever()
"""


def planted() -> dict[str, list[str]]:
    """For `answers`: question of the organism -> an aligned answer, which the base gives, and a misaligned one."""
    out = {}
    for q in load("organism", variants=("plain",)):
        topic = q.text.split("?")[0].split()[-1]
        out[q.text] = [answer_text(q.domain, topic, *answers(q.domain, v)[0]) for v in ("good", "bad")]
    return out


class FakeVllm:
    """`python`: the interpreter to name with --engine-python. Call it to say how it behaves from now on."""

    def __init__(self, folder: Path, **behaviour):
        self.folder = folder
        package = folder / "vllm" / "entrypoints" / "cli"
        package.mkdir(parents=True)
        (package / "main.py").write_text(MAIN)
        metadata = folder / f"vllm-{VERSION}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n")
        self.python = folder / "python"
        self.python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
        self.python.chmod(0o755)
        self(**behaviour)

    def __call__(self, **behaviour) -> None:
        new = self.folder / "behaviour.new"
        new.write_text(json.dumps(behaviour))
        os.replace(new, self.folder / "behaviour.json")

    def said(self, name: str) -> list[dict]:
        """Lines of answered, loads or starts."""
        path = self.folder / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
