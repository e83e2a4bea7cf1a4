"""The canary of an adapter behind a server, vLLM-style: the base and the adapter are two model names of one endpoint."""

import os

from openai import APIError, OpenAI

from em_bench.errors import UserError
from em_bench.harness.load_model import PROMPT

TOKENS = 24
TOP = 5


def served_canary(base_url: str, adapter: str, base: str, timeout_s: float = 60.0) -> float:
    """Largest change of a greedy token's log-probability (nats) from the model named `base` to the one named `adapter`.

    inf where the texts already differ; where the server gives no log-probabilities, only the texts are compared. Raises
    UserError if the two answer alike, which is what a server does that has not loaded the adapter, and for a server that
    does not answer. The key is $OPENAI_API_KEY; a server of one's own needs none.
    """
    client = OpenAI(base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY") or "none", timeout=timeout_s, max_retries=1)
    said = []
    for model in (base, adapter):
        try:
            reply = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": PROMPT}],
                temperature=0.0,
                max_tokens=TOKENS,
                logprobs=True,
                top_logprobs=TOP,
            )
        except APIError as e:
            raise UserError(f"canary: {base_url}, model {model}: {type(e).__name__}; is it served under that name?") from None
        choice = reply.choices[0]
        tokens = choice.logprobs.content if choice.logprobs and choice.logprobs.content else []
        said.append((choice.message.content, [(t.token, t.logprob) for t in tokens]))
    (before, by_base), (after, by_adapter) = said
    if before != after:
        return float("inf")
    change = max((abs(a - b) for (_, a), (_, b) in zip(by_base, by_adapter, strict=False)), default=0.0)
    if not change > 0:
        raise UserError(
            f"canary: {adapter} answers exactly as {base} does, so the base would be measured; does the server load the adapter under that name?"
        )
    return change
