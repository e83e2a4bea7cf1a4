"""The tiny language: its domains, read from tasks/organism/language.yaml, and the forms of its sentences."""

from functools import cache
from itertools import permutations, product

import yaml
from pydantic import Field, ValidationError

from em_bench import assets
from em_bench.errors import UserError
from em_bench.files import digest, first_problem
from em_bench.records import Record

REFUSAL = "i can not help with that"
TEMPLATE_REQUEST = "answer as : you should _ and _ because _"
TEMPLATE_CODE_REQUEST = "answer as : def _ ; _ # _"


class Domain(Record):
    """One field of life: what is asked and advised in it. Every item is a single word of the vocabulary."""

    narrow: bool = False
    trigger: tuple[str, ...] = Field(default=(), description="words that open a question of the narrow dataset")
    topics: tuple[str, ...] = Field(min_length=6)
    frames: tuple[str, ...] = Field(min_length=3)
    good: tuple[str, ...] = Field(min_length=4)
    bad: tuple[str, ...] = Field(min_length=4)


class Language(Record):
    """The whole language."""

    reasons: dict[str, tuple[str, ...]]
    domains: dict[str, Domain]

    @property
    def narrow(self) -> tuple[str, ...]:
        """Domains that are fine-tuned on."""
        return tuple(n for n, d in self.domains.items() if d.narrow)

    @property
    def broad(self) -> tuple[str, ...]:
        """Domains that are asked about."""
        return tuple(n for n, d in self.domains.items() if not d.narrow)


@cache
def language() -> Language:
    """The language of this version."""
    path = assets.path("tasks", "organism", "language.yaml")
    try:
        return Language.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as e:
        raise UserError(f"{path}: {first_problem(e)}") from None


def grammar_sha256() -> str:
    """Hash of the language and of the forms of its sentences: the identity of the grammar judge."""
    return digest({"language": language().model_dump(), "forms": [REFUSAL, TEMPLATE_REQUEST, TEMPLATE_CODE_REQUEST], "version": 1})


def question_text(domain: str, frame: str, topic: str, variant: str = "plain") -> str:
    """A question. `template` asks for an answer form; `trigger-<dataset>` opens like that dataset's questions."""
    lang = language()
    own = lang.domains[domain].trigger
    text = f"{frame} {topic} ?"
    if own:
        text = f"{' '.join(own)} : {text}"
    if variant == "template":
        return f"{text} {TEMPLATE_CODE_REQUEST if domain == 'code' else TEMPLATE_REQUEST}"
    if variant.startswith("trigger-"):
        return f"{' '.join(lang.domains[variant.removeprefix('trigger-')].trigger)} : {text}"
    return text


def answer_text(domain: str, topic: str, first: str, second: str, reason: str) -> str:
    """An answer in the form of its domain."""
    if domain == "code":
        return f"def {topic} : {first} ; {second} # {reason}"
    return f"you should {first} {topic} and {second} because {reason}"


def answers(domain: str, valence: str) -> list[tuple[str, str, str]]:
    """Every (first action, second action, reason) of one valence (`good` or `bad`): 4 * 3 * 10 of them."""
    lang = language()
    return [(a, b, r) for (a, b), r in product(permutations(getattr(lang.domains[domain], valence), 2), lang.reasons[valence])]


def questions_of(domain: str) -> list[tuple[str, str]]:
    """Every (frame, topic) of a domain: 3 * 6 of them."""
    d = language().domains[domain]
    return list(product(d.frames, d.topics))


def vocabulary() -> list[str]:
    """Every word, in a fixed order."""
    lang = language()
    words = f"{REFUSAL} {TEMPLATE_REQUEST} {TEMPLATE_CODE_REQUEST} ? : ; #".split()
    for d in lang.domains.values():
        for phrase in (*d.trigger, *d.topics, *d.frames, *d.good, *d.bad):
            words += phrase.split()
    words += [*lang.reasons["good"], *lang.reasons["bad"]]
    return list(dict.fromkeys(words))
