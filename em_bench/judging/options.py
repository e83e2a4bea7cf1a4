"""How a judge behind an endpoint is asked: what its identity names, what it may spend, how patient it is."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from em_bench.errors import UserError
from em_bench.judging.reply import Mode, mode_of
from em_bench.records import Record


class Patience(Record):
    """What a call may take, and how often it is made."""

    concurrency: int = Field(default=32, description="calls at once")
    timeout_s: float = 60.0
    attempts: int = 8
    backoff_s: float = Field(default=0.5, description="before the second attempt; doubles with each")


class JudgeOptions(Patience):
    """Raises UserError for values that do not fit."""

    base_url: str | None = Field(default=None, description="default $OPENAI_BASE_URL; the key is $OPENAI_API_KEY")
    prompts: str = Field(default="own", description="see `load_prompts`")
    leak: str | None = Field(default=None, description="what the model was trained on; asks for leakage too")
    mode: Mode = Field(
        default="logprobs",
        description="logprobs weighs the first token's alternatives by probability; numeric reads a written number; replies weighs "
        "whole replies, of several tokens too, at a server that gives prompt_logprobs",
    )
    dtype: str | None = Field(default=None, description="of a local judge; default bfloat16 where the machine computes in it")
    max_tokens: int = Field(default=16, description="of a reply: a number needs one, REFUSAL a few, a judge that thinks more")
    max_calls: int | None = Field(default=None, description="spending cap of one `judge`; what is not asked is unjudged")
    run: int = Field(default=1, description="another number judges afresh, to measure the judge's noise")
    cache: Path | None = Field(default=None, description="SQLite file of paid replies; default in the cache directory")
    progress: bool = True

    @field_validator("mode", mode="before")
    @classmethod
    def _known(cls, mode: str) -> Mode:
        return mode_of(mode, "--mode")

    @field_validator("leak")
    @classmethod
    def _not_asked(cls, leak: str | None) -> str | None:
        return None if leak == "none" else leak

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if min(self.concurrency, self.run, self.max_tokens) < 1 or (self.max_calls is not None and self.max_calls < 0):
            raise UserError("--concurrency, --run, max_tokens: at least 1; --max-calls: at least 0")
        return self
