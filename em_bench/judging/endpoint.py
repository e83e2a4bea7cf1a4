"""One chat model behind an OpenAI-compatible endpoint, asked politely: bounded waits, attempts, bytes and spending.

The client's own retries are off: it does not know of the spending cap, and all calls must rest together when the
endpoint asks for a pause. The key comes from the environment and is cut out of everything that the endpoint sends back.
"""

import asyncio
import email.utils
import ipaddress
import json
import os
import random
import time
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai

from em_bench.errors import UserError
from em_bench.judging.asked import EARLY, Failed
from em_bench.judging.options import Patience
from em_bench.judging.providers import retirement
from em_bench.judging.reply import Malformed, Refused, Reply, read_completion, server_words
from em_bench.judging.request_parameters import is_ours, taken

KEY = "OPENAI_API_KEY"
OFFICIAL = "https://api.openai.com/v1"
MAX_BYTES = 1 << 20  # of one reply; twenty alternatives for each of a few tokens are some 30 kB
MAX_BACKOFF_S = 30.0
MAX_PAUSE_S = 300.0  # an endpoint that asks for more is out of service


T = TypeVar("T")
Less = Callable[[dict[str, object], str, str | None], dict[str, object] | None]


class Spent(Failed):
    """The spending cap is reached."""


class TooLong(Failed):
    """The endpoint sends more than MAX_BYTES."""


class Endpoint:
    """A model at an address; an async context manager. `sent` counts the calls that may have cost money.

    model: as the endpoint names it. base_url: default $OPENAI_BASE_URL, else OpenAI's own. decoding: what is sent
    beside model and messages; where the endpoint refuses some of it before it ever answered, `less` says what to send instead,
    and `on_taken` hears of it. who: what errors call the model. Raises UserError for an address that is none, and for OpenAI's
    own without a key.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        decoding: dict[str, object],
        patience: Patience = Patience(),
        *,
        max_calls: int | None = None,
        on_taken: Callable[[dict[str, object]], None] = lambda decoding: None,
        less: Less = taken,
        who: str = "judge",
    ) -> None:
        self.model, self.decoding, self._asked = model, decoding, decoding
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL
        self._key = os.environ.get(KEY, "")
        self.host = host_of(self.base_url)
        if not self._key and self.host == host_of(OFFICIAL):
            raise UserError(f"{KEY}: not set; set it, or name your own endpoint with --base-url or OPENAI_BASE_URL")
        self.timeout_s, self.attempts, self.backoff_s = patience.timeout_s, patience.attempts, patience.backoff_s
        self.connections, self.max_calls, self._on_taken, self._less = patience.concurrency, max_calls, on_taken, less
        self._who = who
        self.sent = self._open = 0
        self.works = False  # whether it is known to have answered, now or in an earlier run
        self._failures = self._rejected = 0
        self._rest_until = 0.0

    @property
    def name(self) -> str:
        """The host, where it is a public one: private addresses and ports change between runs of the same model."""
        return "local" if _is_private(self.host) else self.host

    async def __aenter__(self) -> Self:
        self._returned = asyncio.Condition()
        http = httpx2.AsyncClient(transport=_Transport(self.base_url, self.connections))
        self._client = openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=self.timeout_s,
            http_client=http,
            default_headers={"Accept-Encoding": "identity"},  # so that MAX_BYTES bounds what a reply unpacks to
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        await self._client.close()

    async def ask(self, prompt: str) -> Reply:
        """The reply to one prompt. Raises Failed; UserError where no call to this endpoint can succeed."""
        try:
            return await self.call({"messages": [{"role": "user", "content": prompt}]}, read_completion)
        except TooLong:
            return Reply("", problem=f"the reply has more than {MAX_BYTES} bytes")

    async def call(
        self, fields: Mapping[str, object], read: Callable[[object], T], path: str = "/chat/completions", plain: bool = False
    ) -> T:
        """What `read` makes of the JSON reply to one call; `read` raises Malformed for what is no answer.

        fields: of the body, over the decoding; those that the endpoint was found to refuse stay out. plain: they alone, and the
        model. Raises Failed; UserError where no call to this endpoint can succeed.
        """
        attempt = 0
        while attempt < self.attempts:
            if attempt:
                await asyncio.sleep(min(self.backoff_s * 2 ** (attempt - 1), MAX_BACKOFF_S) * random.uniform(0.5, 1.0))
            await self._rest()
            await self._begin()
            decoding, free = self.decoding, False
            kept = {k: v for k, v in fields.items() if plain or k in decoding or k not in self._asked}
            try:
                async with asyncio.timeout(self.timeout_s):
                    reply = read(await self._send(path, {"model": self.model, **({} if plain else decoding), **kept}))
            except openai.APIStatusError as e:
                free = True
                if self._takes_less(decoding, self._words(e), e.param):
                    continue
                problem = self._refused(e)
            except Refused as e:
                free, problem = True, str(e)
                if self._takes_less(decoding, problem):
                    continue
            except TimeoutError:
                problem = f"no answer within {self.timeout_s:g} s"
            except (aiohttp.ClientError, openai.APIConnectionError, OSError) as e:
                problem = "the connection fails or is cut"
                free = isinstance(e, aiohttp.ClientConnectorError)  # nothing was sent
            except Malformed as e:
                problem = str(e)
            else:
                self.works = True
                self._failures = 0
                return reply
            finally:
                await self._end(free)
            attempt += 1
        self._failures += 1
        if self._failures >= EARLY:
            again = "replies so far are kept: run again when it works"
            raise UserError(f"{self._who} {self.model} at {self.host}: {problem}, {self._failures} calls in a row; {again}")
        raise Failed(f"{problem} ({self.attempts} attempts)")

    async def _begin(self) -> None:
        """Wait until the cap allows a call, with those under way counted: they may still turn out to cost nothing."""
        if (cap := self.max_calls) is not None:
            async with self._returned:
                await self._returned.wait_for(lambda: self.sent + self._open < cap or self.sent >= cap)
                if self.sent >= cap:
                    raise Spent(f"not asked: the cap of {cap} calls is reached")
        self._open += 1

    async def _end(self, free: bool) -> None:
        self._open -= 1
        self.sent += not free
        async with self._returned:
            self._returned.notify_all()

    def _takes_less(self, decoding: dict[str, object], words: str, param: str | None = None) -> bool:
        """Whether the call may be made again, without what the endpoint refuses. Never once it has answered: one judge, one decoding."""
        if self.decoding != decoding:
            return True  # another call was told the same
        less = None if self.works else self._less(decoding, words, param)
        if less is not None:
            self.decoding = less
            self._on_taken(less)
        return less is not None

    async def _send(self, path: str, body: dict[str, object]) -> object:
        # Not chat.completions.create: its typed models cost as much as the rest of a call.
        response = await self._client.post(self.base_url.rstrip("/") + path, body=body, cast_to=httpx2.Response)
        try:
            return json.loads(self._without_key(response.content.decode("utf-8", "replace")))
        except (ValueError, RecursionError):
            raise Malformed("the reply is not JSON") from None

    async def _rest(self) -> None:
        # Together with all other calls, until the time that the endpoint asked for.
        while (left := self._rest_until - time.monotonic()) > 0:
            await asyncio.sleep(left + random.uniform(0, self.backoff_s))

    def _refused(self, e: openai.APIStatusError) -> str:
        """What went wrong, where another attempt may help. Raises UserError or Failed where it cannot."""
        status, words = e.status_code, self._words(e)
        said = f": {words}" if words else ""
        where = f"{self._who} {self.model} at {self.host}: HTTP {status}"
        if status in (400, 403, 422) and is_ours(words, e.param):
            hint = "try --mode numeric, or another model" if self._who == "judge" else "it cannot be sampled as it is asked to"
            raise UserError(f"{where}{said}; {hint}") from None
        if status in (401, 403):
            raise UserError(f"{where}{said}; check {KEY}") from None
        if status == 404 or status < 400:  # a redirect would take the key elsewhere
            mend = retirement(self.model, self.host)[0] or "check the model's name and the base URL"
            raise UserError(f"{where}{said}; {mend}") from None
        if status == 402 or "insufficient_quota" in (e.code, e.type):
            raise UserError(f"{where}{said}; replies so far are kept: run again when there is credit") from None
        if status in (408, 409, 425, 429) or status >= 500:
            wait = _retry_after(e.response.headers)
            if wait is not None and wait > MAX_PAUSE_S:
                raise UserError(f"{where}: asks to wait {wait:.0f} s; replies so far are kept: run then") from None
            self._rest_until = max(self._rest_until, time.monotonic() + (wait or 0.0))
            return f"HTTP {status}{said}"
        self._rejected += 1
        # This prompt cannot be judged; where none ever could, the endpoint is the wrong one.
        if self._rejected >= EARLY and not self.works:
            raise UserError(f"{where}{said}; it rejected the first {EARLY} calls: try another model") from None
        raise Failed(f"HTTP {status}{said}") from None

    def _words(self, e: openai.APIStatusError) -> str:
        text = self._without_key(e.response.content.decode("utf-8", "replace"))
        try:
            return server_words(json.loads(text))
        except (ValueError, RecursionError):
            return server_words(text)

    def _without_key(self, text: str) -> str:
        # Shorter ones are placeholders for endpoints that want none, and would be found in any text.
        return text.replace(self._key, "***") if len(self._key) >= 8 else text


class _Transport(httpx2.AsyncBaseTransport):
    """The client's requests through aiohttp, at half the cost of its own pool; no redirects, no more than MAX_BYTES."""

    def __init__(self, base_url: str, connections: int) -> None:
        parts = urlsplit(base_url)
        bypassed = urllib.request.proxy_bypass(host_of(base_url))
        self._proxy = None if bypassed else urllib.request.getproxies().get(parts.scheme)
        tls = httpx2.create_ssl_context() if parts.scheme == "https" else True
        # No timeout of its own: `ask` has one for the whole call.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=tls),
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        async with self._session.request(
            request.method,
            str(request.url),
            data=request.content,
            headers=request.headers,
            proxy=self._proxy,
            allow_redirects=False,
        ) as reply:
            body = bytearray()
            async for chunk in reply.content.iter_any():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise TooLong
            headers = [(k, v) for k, v in reply.raw_headers if k.lower() not in (b"content-encoding", b"content-length")]
            plain = _unpacked(bytes(body), reply.headers.get("content-encoding", ""))
            return httpx2.Response(reply.status, headers=headers, content=plain, request=request)

    async def aclose(self) -> None:
        await self._session.close()


def _unpacked(body: bytes, packing: str) -> bytes:
    """A body as it was before a server or proxy packed it, which nobody asked for. Raises TooLong, Malformed."""
    if packing.strip().lower() in ("", "identity"):
        return body
    if packing.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise Malformed("the reply is packed in a way that was not asked for")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = unpack.decompress(body, MAX_BYTES + 1)
    except zlib.error:
        raise Malformed("the reply cannot be unpacked") from None
    if len(plain) > MAX_BYTES:
        raise TooLong
    return plain


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds to wait, from Retry-After as seconds or as a date."""
    said = headers.get("retry-after", "").strip()
    try:
        return max(float(said), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(said).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


def host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:  # a port may be no number
            if "@" not in parts.netloc and not parts.query and not parts.fragment:
                return parts.hostname
            # Never quoted: it may hold a secret.
            raise UserError(f"--base-url, OPENAI_BASE_URL: holds more than an address; give that alone, and the key in {KEY}")
    except ValueError:
        pass
    raise UserError("--base-url, OPENAI_BASE_URL: no http or https address; write e.g. http://127.0.0.1:8000/v1")


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host
