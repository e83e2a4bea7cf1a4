"""The pinned upstream files (baselines/pins.yaml): where each comes from, its hash, its rows, its terms."""

from functools import cache
from typing import Annotated, Literal

from pydantic import Field, model_validator

from em_bench import assets
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.records import Provenance, Record, Sha256
from em_bench.yaml_file import read_yaml

Relative = Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")]


class Pin(Record):
    """One file: at a path of a repository's commit, a member of a pinned archive, or here already."""

    kind: Literal["training_set", "questions", "archive"]
    about: str
    repository: Relative | None = Field(default=None, description="owner/name")
    commit: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    path: Relative | None = None
    host: str | None = Field(
        default=None, description="in place of the global one; may say where {repository}, {commit} and {path} go"
    )
    file: str | None = Field(default=None, description="a file that is here: absolute, or from the folder of pins.yaml")
    archive: str | None = Field(default=None, description="the pin whose archive holds the file")
    member: Relative | None = Field(default=None, description="file name inside the archive")
    sha256: Sha256 | None = Field(description="None: recorded on the first verified fetch")
    sha256_prefix: str | None = Field(default=None, pattern=r"^[0-9a-f]+$", description="where only that is known")
    bytes: int | None = Field(default=None, gt=0)
    rows: int | None = Field(default=None, gt=0, description="JSON lines, or questions with all their paraphrases")
    password: str | None = Field(default=None, description="published by the archive's authors")
    licence: str | None = None
    terms: str | None = Field(default=None, description="terms of use that a user has to accept first")
    provenance: Provenance

    @model_validator(mode="after")
    def _in_one_place(self) -> "Pin":
        places = ((self.repository, self.commit, self.path), (self.archive, self.member), (self.file,))
        if [all(p) for p in places if any(p)] != [True] or (self.host and not self.repository):
            raise ValueError("needs one of: repository, commit and path (and host); archive and member; file")
        if self.file and self.sha256 is None:
            raise ValueError("a file that is here needs its sha256")
        if (self.rows is None) != (self.kind == "archive"):
            raise ValueError("rows are needed for everything but an archive")
        return self

    @property
    def counted(self) -> int:
        """Its rows. Raises UserError for an archive, which has none of its own."""
        if self.rows is None:
            raise UserError(f"{self.about}: is an archive, whose rows are not known; name one of its members")
        return self.rows

    def in_repository(self) -> tuple[str, str, str]:
        """(repository, commit, path) of a pin that is neither here nor in an archive."""
        assert self.repository and self.commit and self.path
        return self.repository, self.commit, self.path

    def in_archive(self) -> tuple[str, str] | None:
        """(archive, member) of a pin that one holds."""
        return (self.archive, self.member) if self.archive and self.member else None

    @property
    def identity(self) -> tuple[str, ...]:
        """What names the content of a file that is no member."""
        return (self.file, self.sha256) if self.file and self.sha256 else self.in_repository()

    @property
    def source(self) -> str:
        """Where it comes from, in short."""
        return self.file or "{}@{:.7}".format(*self.in_repository())


class Terms(Record):
    """Terms of use, in our words."""

    holder: str
    original: str = Field(description="where their own words are")
    summary: str


class Pins(Record):
    """The whole file."""

    host: str = Field(description="then /repository/commit/path, unless it says otherwise as a pin's own may")
    terms: dict[str, Terms]
    pins: dict[str, Pin]

    @model_validator(mode="after")
    def _names_exist(self) -> "Pins":
        for name, pin in self.pins.items():
            if pin.archive and (pin.archive not in self.pins or self.pins[pin.archive].kind != "archive"):
                raise ValueError(f"pins.{name}.archive: {pin.archive} is not a pinned archive")
            if pin.terms and pin.terms not in self.terms:
                raise ValueError(f"pins.{name}.terms: {pin.terms} is not among the terms")
        return self


@cache
def load_pins() -> Pins:
    """The pins of this version. Raises UserError naming the file and the field."""
    return read_yaml(assets.path("baselines", "pins.yaml"), Pins)


def pin(name: str) -> Pin:
    """One pin by name. Raises UserError that lists the names."""
    pins = load_pins().pins
    if name not in pins:
        raise unknown("pinned source", name, pins)
    return pins[name]


def holder(name: str) -> Pin:
    """The pin whose file is fetched for a pin: itself, or the archive that holds it."""
    entry = pin(name)
    return pin(entry.archive) if entry.archive else entry


def terms_of(name: str) -> tuple[str, Terms] | None:
    """(name, text) of the terms of use of a pin, or of the archive that holds it; None where there are none."""
    term = pin(name).terms or holder(name).terms
    return (term, load_pins().terms[term]) if term else None
