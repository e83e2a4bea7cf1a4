"""What all records share: strictness, hashes, letters of provenance."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from em_bench.line import MOST_TEXT

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MOST_RANK = 4096  # singular values of a curve
TEN_YEARS = 315_360_000.0  # seconds
Provenance = Literal["P", "S", "C"]  # paper itself, independent readings of the paper, our choice
Dtype = Literal["float32", "bfloat16", "float64", "int8", "nf4"]
Study = Literal["main", "scale", "loss-alignment", "dynamics", "regularisation"]  # the five of "Evil Spectra"

RecipeClass = Literal["organism", "llm"]  # of models, for which a recipe names learning rates apart


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields, no NaN or infinity, no text without end.

    `em_bench.files` reads them strictly: no number as text, no key twice, no number beyond all measure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), str_max_length=MOST_TEXT)
