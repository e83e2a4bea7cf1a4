"""What every task of ours does before lm-eval asks a model anything."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from em_bench.data.models import base_path
from em_bench.errors import UserError
from em_bench.harness.belonging import belonging
from em_bench.harness.load_model import canary
from em_bench.harness.sampling import settle
from em_bench.harness.served_canary import served_canary
from em_bench.training.chat_template import THINKING_OFF, without_clock


def prepare(chat_template) -> Any:
    """Thinking off, one date, neutral sampling, and the canary; returns lm-eval's model where the chat template is a method of it.

    An adapter on a local model is proved to belong to it and to be at work; one behind a server where $EM_BENCH_SERVED_BASE names its base there.
    Raises UserError for an adapter that changes nothing or belongs to another base.
    """
    lm: Any = getattr(chat_template, "__self__", None)
    options = getattr(lm, "chat_template_args", None)
    if isinstance(options, dict):
        options.update(THINKING_OFF | options)
    if template := getattr(getattr(lm, "tokenizer", None), "chat_template", None):
        lm.tokenizer.chat_template = without_clock(template)
    if hasattr(getattr(lm, "model", None), "generation_config"):
        settle(lm.model, lm.tokenizer)
    adapter, base = (getattr(lm, name, None) for name in ("peft", "pretrained"))
    if isinstance(adapter, str) and isinstance(base, str) and Path(adapter).is_dir():
        belonging(Path(adapter), base, base_path(base))
    if hasattr(getattr(lm, "model", None), "disable_adapter"):
        canary(lm.model, lm.tokenizer)
    elif (base := os.environ.get("EM_BENCH_SERVED_BASE")) and getattr(lm, "base_url", None):
        served_canary(lm.base_url.removesuffix("/chat/completions").removesuffix("/completions"), lm.model, base)
    return lm


@contextmanager
def one_line() -> Iterator[None]:
    """A UserError ends lm-eval's own command line with one line and exit code 2, and stays itself in ours."""
    try:
        yield
    except UserError as e:
        if "em_bench.cli" in sys.modules or "pytest" in sys.modules:
            raise
        print(f"em_bench: {e}", file=sys.stderr)
        raise SystemExit(2) from None
