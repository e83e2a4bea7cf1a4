"""What is known of judges behind providers' endpoints (baselines/judge_endpoints.yaml): when they go, and what a call costs."""

from datetime import UTC, date, datetime

from pydantic import Field

from em_bench import assets
from em_bench.records import Record
from em_bench.yaml_file import read_yaml

SOON = 120  # days before the end in which it is said whenever the judge is asked
CALIBRATE = "em-bench judge calibrate"


class JudgePrice(Record):
    """What a judge call costs. Defaults: the list price of gpt-4o, in US dollars for a million tokens."""

    prompt_usd: float = Field(default=2.5, ge=0)
    reply_usd: float = Field(default=10.0, ge=0)
    as_of: str = "2026-04"
    prompt_tokens: int = Field(default=700, gt=0, description="judge prompt with question and answer")
    reply_tokens: int = Field(default=2, gt=0)

    @property
    def call_usd(self) -> float:
        """Of one call."""
        return (self.prompt_tokens * self.prompt_usd + self.reply_tokens * self.reply_usd) / 1e6


class ProviderModel(Record):
    """One model of the table. Dates are days."""

    host: str
    announced: date | None = None
    gone: date | None = Field(default=None, description="first day without it")
    successor: str | None = Field(default=None, description="what the provider names in its place")
    calibration: str | None = Field(default=None, description="a published record of calibration against the successor")
    prompt_usd: float | None = None
    reply_usd: float | None = None
    priced: str | None = Field(default=None, description="month of the list price")
    read: date
    sources: tuple[str, ...] = Field(min_length=1)
    note: str = ""

    def price(self) -> JudgePrice | None:
        """Its list price, with the usual tokens a call; None where it is not known."""
        if self.prompt_usd is None or self.reply_usd is None or self.priced is None:
            return None
        return JudgePrice(prompt_usd=self.prompt_usd, reply_usd=self.reply_usd, as_of=self.priced)


def provider_models() -> dict[str, ProviderModel]:
    """The table. Raises UserError naming the file and the field."""
    return read_yaml(assets.path("baselines", "judge_endpoints.yaml"), dict[str, ProviderModel])


def provider_model(model: str, host: str) -> ProviderModel | None:
    """What is known of a model at a host; another host may serve the same name for longer."""
    known = provider_models().get(model)
    return known if known and known.host == host else None


def today() -> date:
    """The day, in UTC."""
    return datetime.now(UTC).date()


def retirement(model: str, host: str) -> tuple[str, bool]:
    """What to say of a judge that goes, and whether it is gone already; ("", False) where there is nothing to say."""
    known = provider_model(model, host)
    if known is None or known.gone is None or (left := (known.gone - today()).days) > SOON:
        return "", False
    successor = f"its successor there is {known.successor}" if known.successor else "no successor is named"
    bridge = f"compare them by {known.calibration}" if known.calibration else "no calibration is published"
    if left > 0:
        return (
            f"{host} switches it off on {known.gone} ({left} days); {successor}; run {CALIBRATE} while both can be asked",
            False,
        )
    told = f"switched off by {host} on {known.gone}; {successor}, another judge with other rates: {bridge}"
    return f"{told}; verdicts by both on the same answers make one ({CALIBRATE})", True


def judging_cost(answers: int, questions: int, price: JudgePrice) -> str:
    """What judging costs, in words; `questions` are asked of the judge about each answer."""
    calls = answers * questions
    each = f"{price.prompt_tokens} + {price.reply_tokens} tokens each, ${price.prompt_usd:g} and ${price.reply_usd:g} a million"
    return f"{calls:,} calls, about ${calls * price.call_usd:,.2f} ({each}, prices of {price.as_of})"
