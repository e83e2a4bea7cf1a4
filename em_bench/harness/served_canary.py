"""The canary of an adapter behind a server, vLLM-style: the base and the adapter are two model names of one endpoint."""

from typing import TYPE_CHECKING, Any, NamedTuple

from em_bench.errors import UserError
from em_bench.harness.load_model import PROMPT
from em_bench.judging.asked import Failed
from em_bench.judging.loop import finish
from em_bench.judging.options import Patience
from em_bench.judging.reply import Malformed
from em_bench.records import Canary

if TYPE_CHECKING:
    from em_bench.judging.endpoint import Endpoint

TOKENS = 24
TOP = 5


class Greedy(NamedTuple):
    """A greedy answer; each token with its alternatives' log-probabilities (nats), where the server gives them."""

    text: str
    tokens: list[tuple[str, dict[str, float]]]


def served_canary(base_url: str, adapter: str, base: str, timeout_s: float = 60.0) -> Canary:
    """`canary_of` at an address."""
    from em_bench.judging.endpoint import Endpoint  # of the extra `judge`, and a local model does without

    async def ask() -> Canary:
        patience = Patience(timeout_s=timeout_s, attempts=2, concurrency=1)
        decoding: dict[str, object] = {"temperature": 0.0, "max_tokens": TOKENS}
        async with Endpoint(base, base_url, decoding, patience, who="canary: model") as endpoint:
            return await canary_of(endpoint, adapter, base)

    return finish(ask())


async def canary_of(endpoint: "Endpoint", adapter: str, base: str) -> Canary:
    """What the model named `adapter` changes against the one named `base`, on a greedy answer.

    The largest change of a log-probability up to the first token in which they differ; where the server gives none, the texts
    are compared. The base is asked twice: a change must be larger than what it differs from itself by, which batches on a
    GPU may cause. Raises UserError if the two answer alike, which is what a server does that has not loaded the adapter.
    """
    before, after, again = [await _greedy(endpoint, model) for model in (base, adapter, base)]
    if before.tokens and after.tokens and again.tokens:
        change, noise = _change(before, after), _change(before, again)
        if change > 2 * noise:
            return Canary(max_logprob_change=change)
    elif before.text != after.text and before.text == again.text:
        return Canary()
    raise UserError(
        f"canary: {adapter} answers as {base} does, so the base would be measured; does the server load the adapter under that name?"
    )


async def _greedy(endpoint: "Endpoint", model: str) -> Greedy:
    asked = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "temperature": 0.0, "max_tokens": TOKENS}
    try:
        try:
            return await endpoint.call(asked | {"logprobs": True, "top_logprobs": TOP}, read_greedy, plain=True)
        except (Failed, UserError):
            return await endpoint.call(asked, read_greedy, plain=True)  # a server that gives no log-probabilities
    except Failed as e:
        raise UserError(f"canary: {endpoint.host}, model {model}: {e}; is it served under that name?") from None


def read_greedy(body: Any) -> Greedy:
    """The first choice of a chat completion. Raises Malformed."""
    try:
        choice = body["choices"][0]
        tokens = (choice.get("logprobs") or {}).get("content") or []
        found = [(t["token"], {a["token"]: float(a["logprob"]) for a in [*(t.get("top_logprobs") or []), t]}) for t in tokens]
        text = choice["message"].get("content") or ""
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise Malformed(f"not a chat completion ({type(e).__name__})") from None
    if not isinstance(text, str) or not all(isinstance(t, str) and p < 0.01 for _, top in found for t, p in top.items()):
        raise Malformed("not a chat completion: a token is no text, or has no probability")
    return Greedy(text, found)


def _change(a: Greedy, b: Greedy) -> float:
    largest = 0.0
    for (token, by_a), (other, by_b) in zip(a.tokens, b.tokens, strict=False):
        largest = max([largest, *(abs(by_a[t] - by_b[t]) for t in by_a.keys() & by_b.keys())])
        if token != other:
            # An alternative that one does not list is at most as likely as the last that it lists.
            return max(
                [
                    largest,
                    *(
                        abs(one[t] - min(two.values()))
                        for t, one, two in ((token, by_a, by_b), (other, by_b, by_a))
                        if t not in two
                    ),
                ]
            )
    return largest
