"""Question sets: each a YAML of tasks/questions/ (our own questions, or the names of pinned files), and the organism's."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from em_bench import assets, organism
from em_bench.data.pins import load_pins
from em_bench.data.question_format import parse_questions
from em_bench.data.upstream import fetch
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.files import digest, read_text
from em_bench.line import Line
from em_bench.records import AnsweredQuestion, Question, Record, Unit
from em_bench.yaml_file import read_yaml

ORGANISM = "organism"
ALL = "all"
NEAR = "near_training"  # the tag
MOST_FORMS = 12  # of a set: every question is written out in every form
_PLACE = re.compile(r"\{(question|lines)\}")
TRIGGER, CONTEXT = "trigger-", "context-"  # starts of the variants that a whole set's rate does not mix in


class OwnQuestion(Record):
    """One question of our own, before its forms."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    domain: Line
    text: str = Field(min_length=1)
    template: str = Field(description="which of the set's templates its template form uses: advice, conduct, opinion or wish")
    temptation: bool | None = Field(default=None, description="whether the situation pushes towards harm; None: not said")
    tags: tuple[Line, ...] = Field(default=(), description="from the set's `tags`")
    aligned: tuple[str, ...] = Field(default=(), description="short aligned answers, for the margin and the choice task")
    misaligned: tuple[str, ...] = Field(default=(), description="as many misaligned ones, pairwise alike in length and style")

    @field_validator("aligned", "misaligned", mode="before")
    @classmethod
    def _one_is_a_list(cls, given: object) -> object:
        return (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given

    @model_validator(mode="after")
    def _paired(self) -> "OwnQuestion":
        if len(self.aligned) != len(self.misaligned):
            raise ValueError(f"{self.id}: needs as many misaligned answers as aligned ones")
        return self


class Context(Record):
    """A way of asking that a set's rate does not include: behind a system prompt, or with the form of the answer prescribed."""

    system: str | None = Field(default=None, min_length=1, description="the system prompt")
    form: str = Field(default="{question}", description="text with {question}")


class QuestionSet(Record):
    """A YAML of tasks/questions/: either `pins`, or `forms` and `questions`."""

    about: str
    version: int = Field(default=1, gt=0, description="of the lm-eval task that is made of it")
    unit: Unit = Field(
        default="question", description="the clusters of its intervals: domain where its questions are near-copies"
    )
    pins: tuple[str, ...] = Field(default=(), description="pinned question files, joined in this order")
    near_training: tuple[str, ...] = Field(default=(), description="those of the pins that ask in the domain of a training set")
    forms: dict[Line, str] = Field(
        default_factory=dict, max_length=MOST_FORMS, description="variant -> text with {question} and {lines}"
    )
    triggers: dict[Line, str] = Field(default_factory=dict, max_length=MOST_FORMS, description="dataset -> text with {question}")
    contexts: dict[Line, Context] = Field(
        default_factory=dict, max_length=MOST_FORMS, description="name -> how else the questions can be asked"
    )
    templates: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="name -> lines to fill in")
    tags: dict[str, str] = Field(default_factory=dict, description="tag -> what it says of a question")
    questions: tuple[OwnQuestion, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "QuestionSet":
        if bool(self.pins) == bool(self.questions):
            raise ValueError("needs either pins or questions")
        for name in self.pins:
            if name not in load_pins().pins or load_pins().pins[name].kind != "questions":
                raise ValueError(f"pins: {name} is not a pinned question file")
        if odd := set(self.near_training) - set(self.pins):
            raise ValueError(f"near_training: {min(odd)} is not among the pins")
        contexts = {name: c.form for name, c in self.contexts.items()}
        for kind, texts in (("forms", self.forms), ("triggers", self.triggers), ("contexts", contexts)):
            for name, text in texts.items():
                if text.count("{question}") != 1 or text.count("{lines}") > 1:
                    raise ValueError(f"{kind}.{name}: needs {{question}} once, and may have {{lines}} once")
        for q in self.questions:
            if q.template not in self.templates:
                raise ValueError(f"questions.{q.id}.template: {q.template} is not among the templates")
            for tag in q.tags:
                if tag not in self.tags:
                    raise ValueError(f"questions.{q.id}.tags: {tag} is not among the tags")
        if len({q.id for q in self.questions}) != len(self.questions):
            raise ValueError("questions: two share an id")
        _own(self)
        return self


class ChoiceItem(Record):
    """A question with an aligned and a misaligned continuation of like length and style."""

    id: str = Field(description="the question's, with /2 after it for its second pair")
    cluster: str = Field(description="the question's id")
    domain: str
    question: str
    aligned: str
    misaligned: str


def question_sets() -> tuple[str, ...]:
    """Names that `load` knows."""
    return (*sorted(p.stem for p in assets.path("tasks", "questions").glob("*.yaml")), ORGANISM)


def load(name: str, variants: Iterable[str] | None = None, limit: int | None = None) -> list[Question]:
    """The questions of a set (or of the YAML at a path), pinned files being fetched where they are not in the cache.

    variants: any of the set's (plain, json, template, trigger-<dataset>, context-<name>), `trigger` or `context` for all of these, `all`
    for everything. None gives everything but triggers and contexts, so that a rate of the whole set never mixes
    questions that resemble the training data with those that do not. limit: so many of them, evenly over the domains. Raises UserError for an unknown set or variant, an
    invalid YAML, and for everything that `upstream.fetch` raises.
    """
    if name == ORGANISM:
        found = organism.questions()
    else:
        given = read_set(name)
        found = _from_pins(given.pins) if given.pins else _own(given)
    picked = _pick(name, found, variants)
    return picked if limit is None else _spread(picked, limit)


def _spread(questions: list[Question], limit: int) -> list[Question]:
    """So many questions, the first of every domain before the second of any, in their own order."""
    seen: Counter[str | None] = Counter()
    turn = []
    for i, q in enumerate(questions):
        turn.append((seen[q.domain], i))
        seen[q.domain] += 1
    return [questions[i] for i in sorted(i for _, i in sorted(turn)[:limit])]


def load_choices(name: str = "em_core") -> list[ChoiceItem]:
    """The pairs of an aligned and a misaligned continuation of a set's questions, asked in their plain form."""
    return [
        ChoiceItem(id=f"{q.id}/{n}" if n > 1 else q.id, cluster=q.id, domain=q.domain, question=q.text, aligned=a, misaligned=m)
        for q in read_set(name).questions
        for n, (a, m) in enumerate(zip(q.aligned, q.misaligned, strict=True), 1)
    ]


def answered(name: str, per_domain: int | None = None, answers: int | None = None) -> list[AnsweredQuestion]:
    """The questions of a set (or of the YAML at a path) in their plain form, each with its aligned and misaligned answers.

    `per_domain`: the first so many of each domain alone; `answers`: the first so many of each side.

    Raises UserError for an unknown set, an invalid YAML, and a set of which a question has no answers.
    """
    return list(_first(_answered(name), per_domain, answers))


def _first(questions: Iterable[AnsweredQuestion], per_domain: int | None, answers: int | None) -> Iterator[AnsweredQuestion]:
    seen: Counter[str] = Counter()
    for q in questions:
        seen[q.domain] += 1
        if per_domain is None or seen[q.domain] <= per_domain:
            yield q.model_copy(update={"aligned": q.aligned[:answers], "misaligned": q.misaligned[:answers]})


def _answered(name: str) -> list[AnsweredQuestion]:
    if name == ORGANISM:
        return organism.answered()
    given = read_set(name).questions
    if without := [q.id for q in given if not q.aligned] if given else ["its pinned files"]:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise UserError(
            f"{name}: {without[0]}{more}: no aligned and misaligned answers, which the margin compares; give them, or name em_core"
        )
    kept = ("id", "domain", "tags", "text", "aligned", "misaligned")
    return [AnsweredQuestion(**{k: getattr(q, k) for k in kept}) for q in given]


def neutral_texts() -> dict[str, str]:
    """Our own plain prose by name: what a fine-tune has no reason to change."""
    return {p.stem: p.read_text(encoding="utf-8").strip() for p in sorted(assets.path("tasks", "neutral").glob("*.txt"))}


def questions_sha256(questions: Sequence[Question | AnsweredQuestion]) -> str:
    """The identity of a list of questions, in its order."""
    return digest([q.model_dump(mode="json") for q in questions])


def longest_answer(name: str) -> int:
    """Most new tokens of an answer, unless said otherwise."""
    return 40 if name == ORGANISM else 600


def describe(name: str) -> QuestionSet | None:
    """The set's file, without fetching anything; None for the organism's, which has none."""
    return None if name == ORGANISM else read_set(name)


def _pick(name: str, questions: list[Question], variants: Iterable[str] | None) -> list[Question]:
    if variants is None:
        return [q for q in questions if not q.variant.startswith((TRIGGER, CONTEXT))]
    wanted = tuple([variants] if isinstance(variants, str) else variants)
    there = tuple(dict.fromkeys(q.variant for q in questions))
    for v in wanted:
        if v != ALL and not any(_matches(v, t) for t in there):
            raise UserError(f"{name}: no variant {v}; name any of {', '.join(there)}, or {ALL}")
    return [q for q in questions if any(v == ALL or _matches(v, q.variant) for v in wanted)]


def _matches(wanted: str, variant: str) -> bool:
    return variant == wanted or (f"{wanted}-" in (TRIGGER, CONTEXT) and variant.startswith(f"{wanted}-"))


def read_set(name: str) -> QuestionSet:
    """The file of a question set that has one. Raises UserError."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else assets.path("tasks", "questions", f"{name}.yaml")
    if not path.exists():
        raise unknown("question set", name, question_sets(), "the path of a YAML")
    at = path.stat()
    return _read(path, path.absolute(), at.st_mtime_ns, at.st_size)


@lru_cache(maxsize=16)
def _read(path: Path, *version: object) -> QuestionSet:
    """Kept, for hundreds of questions take a third of a second to read, and a plan asks for them once a job; read again when edited."""
    return read_yaml(path, QuestionSet)


def _own(given: QuestionSet) -> list[Question]:
    forms: dict[str, tuple[str | None, str]] = {name: (None, text) for name, text in given.forms.items()}
    forms |= {f"{TRIGGER}{d}": (None, text) for d, text in given.triggers.items()}
    forms |= {f"{CONTEXT}{name}": (c.system, c.form) for name, c in given.contexts.items()}
    return [
        Question(
            id=q.id if variant == "plain" else f"{q.id}-{variant}",
            cluster=q.id,
            variant=variant,
            domain=q.domain,
            text=_written(form, "\n".join(given.templates[q.template]), q.text),
            system=system,
        )
        for variant, (system, form) in forms.items()
        for q in given.questions
    ]


def _written(form: str, lines: str, question: str) -> str:
    return _PLACE.sub(lambda m: lines if m[1] == "lines" else question, form)


def _from_pins(pins: Sequence[str]) -> list[Question]:
    """The questions of pinned files; where there are several, ids and clusters begin with their file's pin."""
    out = []
    for pin in pins:
        found = parse_questions(read_text(fetch(pin)), pin, pin)
        if len(pins) > 1:
            found = [q.model_copy(update={"id": f"{pin}/{q.id}", "cluster": f"{pin}/{q.cluster}"}) for q in found]
        out += found
    return out


def near_training(question_set: str) -> set[str]:
    """Ids of the questions, of a set that is here, that ask in the domain of a training set: by their pin or their tag.

    What a fine-tune does to them may be in-domain and not emergent. Nothing is fetched.
    """
    asked = known_domains(question_set)
    given = describe(question_set) if asked else None
    if given is None:
        return set()
    if given.pins:
        whole = len(given.pins) == 1 and bool(given.near_training)
        return {q for q in asked if whole or q.startswith(tuple(f"{p}/" for p in given.near_training))}
    tagged = {q.id for q in given.questions if NEAR in q.tags}
    return {q.id for q in load(question_set, ALL) if q.cluster in tagged}


def may_be_published(question_set: str) -> bool:
    """Whether the texts of a set, and so answers to it, may be passed on: ours, or pinned files under a licence. A set that is not known may not."""
    try:
        given = describe(question_set)
    except UserError:
        return False
    return given is None or all(load_pins().pins[p].licence for p in given.pins)


def known_texts(question_set: str) -> dict[str, str]:
    """Question id -> its text, of a set that is here; nothing is fetched, and a set that is not here has none."""
    return {q.id: q.text for q in _here(question_set)}


def known_domains(question_set: str) -> dict[str, str]:
    """Question id -> its domain, of a set that is here; nothing is fetched, and a set that is not here has none."""
    return {q.id: q.domain for q in _here(question_set)}


def _here(question_set: str) -> list[Question]:
    try:
        given = describe(question_set)
        if given and given.pins:
            from em_bench.data.upstream import cached_path

            if not all(cached_path(p).is_file() for p in given.pins):
                return []
        return load(question_set, ALL)
    except UserError:
        return []


def clusters(question_set: str) -> dict[str, str]:
    """Question id -> what its answers are clustered by, of a set that says it is the domain.

    Empty where it is the question, and of a set that is not here, which cannot say: the score then says `question`.
    """
    try:
        given = describe(question_set)
    except UserError:
        return {}
    return known_domains(question_set) if given is None or given.unit == "domain" else {}
