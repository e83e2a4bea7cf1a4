"""A judge from the words that name it: on the command line, in EM_BENCH_JUDGE, in a program."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.judging.exact_judge import GrammarJudge
from em_bench.judging.judge import NONE, Judge, NoJudge

OPTIONS: dict[str, Callable[[str], Any]] = {
    "base_url": str,
    "prompts": str,
    "leak": str,
    "mode": str,
    "concurrency": int,
    "max_calls": int,
    "run": int,
    "max_tokens": int,
    "cache": Path,
    "timeout_s": float,
    "attempts": int,
}


def make_judge(spec: str, **options: Any) -> Judge:
    """The judge `grammar`, `openai:MODEL` for a model behind any OpenAI-compatible endpoint, or `none`, which judges nothing.

    options: those of `OpenAIJudge`; the others have none and take no notice of them. They may also follow the model's
    name, where a harness has room for one word only: `openai:MODEL,mode=numeric,concurrency=64`; these win. Raises
    UserError for other words, and for options that do not fit.
    """
    kind, _, rest = spec.partition(":")
    model, *settings = (word.strip() for word in rest.split(","))
    if spec == "grammar":
        return GrammarJudge()
    if spec == NONE:
        return NoJudge()
    if kind == "openai" and model:
        from em_bench.judging.openai import OpenAIJudge  # slow to import, and the grammar does without

        return OpenAIJudge(model, **options | dict(_option(spec, word) for word in settings))
    raise unknown("judge", spec, ["grammar", "openai:MODEL", NONE])


def _option(spec: str, word: str) -> tuple[str, Any]:
    name, _, value = word.partition("=")
    try:
        return name, OPTIONS[name](value)
    except KeyError:
        raise UserError(f"judge {spec!r}: {name!r} is no option; write NAME=VALUE of {', '.join(OPTIONS)}") from None
    except ValueError:
        raise UserError(f"judge {spec!r}: {name}={value!r} is not a number") from None
