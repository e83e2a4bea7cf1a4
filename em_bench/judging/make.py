"""A judge from the words that name it: on the command line, in EM_BENCH_JUDGE, in a program."""

from pathlib import Path

from pydantic import ValidationError

from em_bench.data.models import default_judge
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.judging.exact_judge import GrammarJudge
from em_bench.judging.judge import NONE, Judge, NoJudge
from em_bench.judging.options import JudgeOptions
from em_bench.judging.own_judge import OwnJudge
from em_bench.judging.prompts import known_prompts, load_prompts

IN_A_WORD = [name for name in JudgeOptions.model_fields if name not in ("backoff_s", "progress")]


def make_judge(spec: str, options: JudgeOptions = JudgeOptions()) -> Judge:
    """The judge `grammar`, `openai:MODEL` for a model behind any OpenAI-compatible endpoint, `local:MODEL` for open weights in
    this process (a name of the roster, a folder or a hub id; `local` is the roster's default, which needs a GPU), `python:FILE`
    (see `OwnJudge`), or `none`, which judges nothing.

    options: the others take no notice of them, but of a name of prompts that there is not. They may also follow the model's name, where a harness has room
    for one word only: `openai:MODEL,mode=numeric,concurrency=64`; these win. Raises UserError for other words, and for
    options that do not fit.
    """
    kind, _, rest = spec.partition(":")
    model, *settings = (word.strip() for word in rest.split(","))
    known_prompts(options.prompts)  # also where none are asked by: a misspelt name must not pass
    if spec == "grammar":
        return GrammarJudge()
    if spec == NONE:
        return NoJudge()
    if kind == "python" and rest:
        return OwnJudge(Path(rest))
    if (kind == "openai" and model) or kind == "local":
        for word in settings:
            options = _with(options, spec, word)
        load_prompts(options.prompts, options.leak)  # a misspelt name is told before what takes long to import
        if kind == "openai":
            from em_bench.judging.openai import OpenAIJudge

            return OpenAIJudge(model, options)
        from em_bench.judging.local import LocalJudge

        return LocalJudge(model or default_judge(), options)
    raise unknown("judge", spec, ["grammar", "openai:MODEL", "local:MODEL", "python:FILE", NONE])


def _with(options: JudgeOptions, spec: str, word: str) -> JudgeOptions:
    name, _, value = word.partition("=")
    if name not in IN_A_WORD:
        raise UserError(f"judge {spec!r}: {name!r} is no option; write NAME=VALUE of {', '.join(IN_A_WORD)}")
    try:
        return JudgeOptions.model_validate(options.model_dump() | {name: value})
    except ValidationError:
        raise UserError(f"judge {spec!r}: {name}={value!r} is not a number") from None
