"""What an organism can do, whatever its persona: of four answers of one valence, is the fitting one the likeliest?

Coherence is read off sampled answers; this is asked of likelihoods, of good and of bad answers alike, so that neither a
persona nor the luck of sampling moves it. A model that a fine-tune has broken loses it.
"""

from random import Random

from em_bench.organism.datasets import questions
from em_bench.organism.language import answer_text, answers, language
from em_bench.records import Record

VALENCES = ("good", "bad")


class KnowledgeItem(Record):
    """A question and four answers to it, of which `choices[0]` fits."""

    id: str
    cluster: str
    question: str
    choices: tuple[str, str, str, str]


def knowledge() -> list[KnowledgeItem]:
    """Every plain broad question, once with good answers and once with bad ones; the same for everybody.

    The fitting answer speaks of the question's topic with actions of its domain. The others have another topic of the
    domain, actions of another domain, or both from another domain. All four have as many words and one valence.
    """
    lang = language()
    out = []
    for q in questions():
        if q.variant != "plain":
            continue
        topic = q.text.split()[-2]
        for valence in VALENCES:
            rng = Random(f"{q.id}/{valence}")
            first, second, reason = rng.choice(answers(q.domain, valence))
            near = rng.choice([t for t in lang.domains[q.domain].topics if t != topic])
            other = rng.choice([d for d in lang.broad if d != q.domain])
            one, two, why = rng.choice(answers(other, valence))
            far = rng.choice(lang.domains[other].topics)
            choices = (
                answer_text(q.domain, topic, first, second, reason),
                answer_text(q.domain, near, first, second, reason),
                answer_text(q.domain, topic, one, two, reason),
                answer_text(other, far, one, two, why),
            )
            out.append(KnowledgeItem(id=f"{q.id}-{valence}", cluster=q.cluster, question=q.text, choices=choices))
    return out
