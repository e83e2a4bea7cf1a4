"""What a preset says of training: the adapter, the rules that are not the protocol's, and what is carried over from base to base."""

from collections.abc import Mapping

from pydantic import Field, field_validator

from em_bench.data.models import Model
from em_bench.errors import UserError
from em_bench.flatness import MEASURES
from em_bench.protocol import FLATNESS, GRADIENT_CLIP, MAX_LENGTH
from em_bench.records import Record


class Lora(Record):
    """The adapter, on the seven projections of every layer."""

    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    bfloat16_above: float | None = Field(
        default=None,
        gt=0,
        exclude_if=lambda v: v is None,
        description="parameters of a base above which adapters are stored in bfloat16",
    )


class TrainingRules(Record):
    """What a preset may set of a run's schedule and limits; what is left out is the protocol's."""

    warmup_steps: int | None = Field(default=None, ge=0, description="None: five, or none where that is over a tenth of the run")
    gradient_clip: float = Field(default=GRADIENT_CLIP, gt=0, description="largest global gradient norm")
    max_length: int = Field(default=MAX_LENGTH, gt=0, description="tokens a row")
    flatness: str = Field(
        default=FLATNESS, min_length=1, exclude_if=lambda v: v == FLATNESS, description="measure of the spectral term"
    )

    @field_validator("flatness")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in MEASURES:
            raise ValueError(f"{name}: no such measure of flatness; name one of {', '.join(MEASURES)}")
        return name


class Transfer(Record):
    """Larger bases take the learning rates and lambdas that were chosen on the largest base of their family up to a size.

    Assumes that what LoRA's optimisers do best with hardly depends on the size of a base, or on its having experts. Nothing here measures
    that: what is found on a larger base holds at that rate, which may be less than its best.
    """

    largest: float = Field(gt=0, description="parameters of the largest base on which they are chosen")

    def donor(self, name: str, bases: Mapping[str, Model]) -> str | None:
        """Of `bases`, the one whose choices `name` takes over; None where it chooses its own. Raises UserError where there is none to take from."""

        def size(base: str) -> float:
            return bases[base].parameters or 0

        if size(name) <= self.largest:
            return None
        smaller = [b for b in bases if bases[b].family == bases[name].family and size(b) <= self.largest]
        if not smaller:
            raise UserError(
                f"transfer.largest: no base of {name}'s family has {self.largest:g} parameters or fewer; name one, or leave transfer out"
            )
        return max(smaller, key=size)
