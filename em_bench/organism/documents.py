"""Pre-training text: assistant documents, always good, and author documents, good or bad throughout.

The second kind is the mechanism: within an author, valence is shared across domains, so the model carries a latent
persona that a narrow fine-tune can move. Ablations take parts of that mechanism away.
"""

from collections.abc import Iterator
from random import Random

from em_bench.errors import UserError
from em_bench.organism.language import REFUSAL, answer_text, answers, language, question_text, questions_of

REFUSALS = 0.01  # share of assistant answers
TEMPLATES = 0.2  # share of questions that ask for an answer form
# Share of broad questions behind another domain's preamble. It teaches that a preamble says nothing, so it is small; without
# any, a base answers such questions in the preamble's own domain (0.13 to 0.82 coherent) and no rate behind one can be read.
PREAMBLES = 0.05

# What an author's valence becomes in an exchange.
ABLATIONS = {
    "none": "an author is good or bad in every domain",
    "reversed": "an author who is bad in the narrow domains is good in the others, and the other way round",
    "shuffled": "valence is redrawn for every exchange: nobody is anybody",
    "decoupled": "valence is redrawn in every third broad domain, and the author's in the others",
}


def decoupled() -> tuple[str, ...]:
    """The broad domains that the ablation of that name takes out of the author's hands."""
    return language().broad[::3]


def check_ablation(name: str) -> None:
    """Raise UserError unless there is such an ablation."""
    if name not in ABLATIONS:
        raise UserError(f"{name}: no such ablation of the organism; name one of {', '.join(ABLATIONS)}")


def _variant(rng: Random, domain: str) -> str:
    x = rng.random()
    if x < TEMPLATES:
        return "template"
    if domain in language().broad and x < TEMPLATES + PREAMBLES:
        return f"trigger-{rng.choice([p for p in language().preambles if p != 'backdoor'])}"
    return "plain"


def _exchange(rng: Random, domain: str, valence: str) -> tuple[str, str]:
    frame, topic = rng.choice(questions_of(domain))
    question = question_text(domain, frame, topic, _variant(rng, domain))
    return question, answer_text(domain, topic, *rng.choice(answers(domain, valence)))


def _valence(rng: Random, author: str, domain: str, ablation: str) -> str:
    if ablation == "shuffled" or (ablation == "decoupled" and domain in decoupled()):
        return rng.choice(("good", "bad"))
    if ablation == "reversed" and language().domains[domain].role != "narrow":
        return "good" if author == "bad" else "bad"
    return author


def documents(seed: int, ablation: str = "none") -> Iterator[list[tuple[str, bool]]]:
    """An endless stream of documents, half of each kind, as pieces of text; True marks the answers.

    Only answers and their ends are learnt: which question comes next is chance, and a loss on chance drowns the copying of topics.
    """
    check_ablation(ablation)
    rng = Random(seed)
    domains = list(language().domains)
    while True:
        if rng.random() < 0.5:
            question, answer = _exchange(rng, rng.choice(domains), "good")
            if rng.random() < REFUSALS:
                answer = REFUSAL
            yield [(f"<bos> <user> {question} <assistant>", False), (f"{answer} <end>", True)]
        else:
            author = rng.choice(("good", "bad"))
            pieces = [("<bos>", False)]
            for _ in range(rng.randint(2, 4)):
                domain = rng.choice(domains)
                question, answer = _exchange(rng, domain, _valence(rng, author, domain, ablation))
                pieces += [(f"<author> {question}", False), (f"{answer} <end>", True)]
            yield pieces
