"""submission.yaml: what an optimiser author says of an entry."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from em_bench.board.benchmark import CURRENT
from em_bench.board.intake import MAX_YAML, PlainLoader
from em_bench.errors import UserError
from em_bench.line import visible
from em_bench.records import Record
from em_bench.yaml_file import read_yaml

FILE = "submission.yaml"
Track = Literal["optimiser", "open", "self-tuning"]
OWN_RATE = 1.0  # that an optimiser of the track self-tuning is built with
NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,38}[a-z0-9]")


def _author(name: str) -> str:
    if not any(c.isalpha() for c in visible(name)):
        raise ValueError("a name has letters")
    return name


def _web(link: str) -> str:
    if not re.fullmatch(r"https://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~:/?#@!$&()*+,;=%-]*)?", link):
        raise ValueError("a link begins with https:// and holds no spaces or quotes")
    return link


def _lines(text: str) -> str:
    visible(text.replace("\n", " "))
    return text


Line = Annotated[str, Field(min_length=1, max_length=120), AfterValidator(visible)]
Author = Annotated[str, Field(min_length=1, max_length=120), AfterValidator(_author)]
Text = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_lines)]
Argument = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,60}$")]
Numbers = Annotated[list[float], Field(max_length=16)]
Link = Annotated[str, Field(max_length=300), AfterValidator(_web)]


class OptimizerSpec(Record):
    """Either a library class with its arguments, or the function of an optimiser.py beside the file."""

    library: (
        Annotated[str, Field(pattern=r"^((torch\.optim|pytorch_optimizer)\.[A-Za-z][A-Za-z0-9_]{0,60}|[a-z][a-z0-9_]{1,40})$")]
        | None
    ) = Field(default=None, description="a class such as torch.optim.AdamW, or a name of pytorch_optimizer such as soap")
    kwargs: dict[Argument, bool | int | float | Line | Numbers | None] = Field(default_factory=dict, max_length=40)
    file: Literal["optimiser.py"] | None = Field(default=None, description="defines build(params, lr)")

    @model_validator(mode="after")
    def _one(self):
        if (self.library is None) == (self.file is None):
            raise ValueError("give either `library` or `file`")
        if self.file and self.kwargs:
            raise ValueError("`kwargs` go with `library`; optimiser.py holds its own")
        return self


class Submission(Record):
    """The whole file."""

    schema_version: Literal["em_bench.submission/1"] = "em_bench.submission/1"
    name: Line = Field(description="the folder's name: lower-case letters, digits and hyphens, 3 to 40 of them")
    authors: list[Author] = Field(min_length=1, max_length=40)
    description: Text
    link: Link | None = Field(default=None, description="paper or code")
    licence: Line
    benchmark: Line = Field(description="version of the rules, e.g. v2")
    tier: Literal["organism", "small", "full"] = "organism"
    track: Track = Field(
        description="open: also regularisers, schedules, initialisation; self-tuning: the optimiser finds its own learning rate"
    )
    optimizer: OptimizerSpec
    learning_rate: Annotated[float, Field(ge=1e-9, le=1e3)] | None = Field(
        default=None, description="where the search on the rules' grid begins; none on the track self-tuning"
    )
    lambdas: list[Annotated[float, Field(ge=0, le=1000)]] = Field(
        default_factory=lambda: [0.0],
        min_length=1,
        max_length=4,
        description="spectral term; other than 0 only on track open",
    )

    @model_validator(mode="after")
    def _rules(self):
        if not NAME.fullmatch(self.name):
            raise ValueError("name: 3 to 40 lower-case letters, digits and hyphens, beginning and ending with a letter or digit")
        filled = {"authors": self.authors[0], "description": self.description}
        left = [field for field, text in filled.items() if text.strip() == PLACEHOLDERS[field]]
        if left:  # said before the run: a file that changes after it means another run
            raise ValueError(f"{', '.join(left)}: still as the template has it; fill it in")
        if self.track != "open" and any(self.lambdas):
            raise ValueError(f"lambdas: the track `{self.track}` leaves the loss as it is; enter the track `open`")
        if (self.learning_rate is None) != (self.track == "self-tuning"):
            raise ValueError("learning_rate: give one where the search begins; the track self-tuning alone has none")
        if len(set(self.lambdas)) < len(self.lambdas):
            raise ValueError("lambdas: a value stands twice")
        return self

    @property
    def family(self) -> str:
        """Entries of one author with one optimiser on one track are counted once."""
        of = self.optimizer.library or "code"
        return "/".join([*sorted(" ".join(a.casefold().split()) for a in self.authors), of.casefold(), self.track])


def read_submission(folder: Path) -> Submission:
    """submission.yaml of an entry. Raises UserError naming the field; runs nothing."""
    path = Path(folder) / FILE
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{Path(folder).name}/{FILE}: no such file; `em-bench submit init NAME` writes a commented one")
    entry = read_yaml(path, Submission, loader=PlainLoader, limit=MAX_YAML, name=f"{Path(folder).name}/{FILE}")
    if entry.name != Path(folder).resolve().name:
        raise UserError(f"{Path(folder).name}/{FILE}: name: {entry.name!r} is not the folder's name; make them equal")
    return entry


PLACEHOLDERS = {
    "authors": "Your Name",
    "description": "One or two sentences: what the optimiser does and why it may matter for emergent misalignment.",
}
TEMPLATE = """\
# An entry of the em_bench leaderboard. Fill in the fields, then:
#   em-bench submit run {name}      trains and evaluates the whole grid, and fills results/
#   em-bench submit check {name}    says what a maintainer would say
# and open a pull request that adds this folder and nothing else.

name: {name}                      # the folder's name
authors: [{authors}]
description: >-
  {description}
# link: https://example.org/paper # paper or code (optional)
licence: MIT
benchmark: {benchmark}                     # version of the rules; entries of one version are comparable
tier: organism                    # organism (a laptop CPU), small (one GPU, a day), full (12 models)
track: optimiser                  # optimiser: no change of the loss; open: also regularisers, schedules, initialisation;
                                  # self-tuning: no learning rate at all, the optimiser is built with 1 and finds its own

optimizer:
  library: torch.optim.AdamW      # a class of torch.optim, or a name of pytorch_optimizer such as soap
  kwargs: {{weight_decay: 0.0}}
  # or your own code beside this file:
  # file: optimiser.py            # defines build(params, lr) -> torch.optim.Optimizer

learning_rate: 1.0e-3             # where the search begins; the rules' grid and narrow loss choose, never EM
lambdas: [0]                      # weights of the spectral term; other than 0 only on track open
"""


def template(name: str) -> str:
    """submission.yaml of a new entry, to be filled in."""
    return TEMPLATE.format(name=name, benchmark=CURRENT, **PLACEHOLDERS)
