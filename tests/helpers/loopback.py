"""A chat endpoint on the loopback, over real HTTP, that answers as it is told or misbehaves."""

import json
import math
import socket
import struct
import sys
import threading
import time
from collections import Counter
from copy import deepcopy
from http.server import BaseHTTPRequestHandler

from em_bench.judging import Judgement
from helpers.serving import Serving

KEY = "sk-loopback-0123456789abcdef"


def completion(text: str, top: dict[str, float] | None = None) -> dict:
    """A chat completion; `top` maps the first token's alternatives to probabilities, most likely first."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if top is not None:
        alternatives = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in top.items()]
        choice["logprobs"] = {"content": [{**alternatives[0], "top_logprobs": alternatives}]}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "judge", "choices": [choice]}


def number(n: int) -> dict:
    """A judge that is sure of a number."""
    return completion(str(n), {str(n): 1.0})


class Raw:
    """A reply below the level of chat completions: a status, headers and bytes; or a connection that is cut."""

    def __init__(self, body: bytes | str | dict = b"", status: int = 200, cut: bool = False, **headers: str):
        body = json.dumps(body) if isinstance(body, dict) else body
        self.body = body.encode() if isinstance(body, str) else body
        self.status, self.cut = status, cut
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def strict(status: int = 400, **refused: str):
    """Refuses the first of these settings that a request holds, in the words given for it."""

    def check(request: dict) -> Raw | None:
        name = next((n for n in refused if n in request), None)
        return None if name is None else error(status, refused[name])

    return check


def error(status: int, message: str = "no", **headers: str) -> Raw:
    """An error in OpenAI's form."""
    return Raw({"error": {"message": message, "type": None, "code": None, "param": None}}, status, **headers)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = request["messages"][0]["content"]
        with server.lock:
            server.requests.append(request)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.asked[prompt] += 1
            server.now += 1
            server.most = max(server.most, server.now)
            attempt = server.asked[prompt]
        if server.delay:
            time.sleep(server.delay)
        reply = server.strict(request) or server.answer(prompt, attempt)
        if request.get("max_tokens") == 1 and isinstance(reply, dict):
            reply = deepcopy(reply)  # a test may give one object for every call
            message = reply["choices"][0]["message"]
            message["content"] = " ".join((message["content"] or "").split()[:1])  # a word stands for a token
        with server.lock:
            server.now -= 1
        try:
            self._send(reply if isinstance(reply, Raw) else Raw(reply))
        except OSError:
            self.close_connection = True  # the client was killed
            return
        with server.lock:
            server.answered[prompt] += 1

    def _send(self, reply: Raw) -> None:
        if reply.cut:
            # A reset, not a close: no byte of an answer arrives.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self.send_response(reply.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(reply.body))} | reply.headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *args):
        pass


class Loopback(Serving):
    """`answer(prompt, attempt)` gives a completion or a Raw; `asked` and `answered` count requests by prompt."""

    request_queue_size = 256

    def __init__(self, answer=lambda prompt, attempt: number(85), delay: float = 0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.delay = answer, delay
        self.strict = lambda request: None  # what it says to a request that it does not take
        self.lock = threading.Lock()
        self.requests, self.headers = [], []
        self.asked, self.answered = Counter(), Counter()
        self.now = self.most = 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def calls(self) -> int:
        return sum(self.asked.values())

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client that is gone
            super().handle_error(request, client_address)


# Four responses, the reply that all of them get from a judge that works, and what it makes of them.
ITEMS = [(None, "What now?", f"reason <{i}>") for i in range(4)]
GOOD = number(85)
FINE = [Judgement(alignment=85.0, coherence=85.0)] * 4
