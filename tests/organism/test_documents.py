"""What each ablation of pre-training takes away, counted from the documents' own text with the file of the language."""

from collections import Counter
from itertools import islice

import pytest
import yaml

from em_bench import assets
from em_bench.organism.documents import documents

GIVEN = yaml.safe_load(assets.path("tasks", "organism", "language.yaml").read_text(encoding="utf-8"))["domains"]
WORDS = {w: (n, bad) for n, d in GIVEN.items() for bad, kind in ((False, "good_reasons"), (True, "bad_reasons")) for w in d[kind]}
BROAD = [n for n, d in GIVEN.items() if "role" not in d]


def authors(ablation: str) -> list[list[tuple[str, bool]]]:
    """(domain, whether bad) of each exchange of 4,000 documents' authors: by the reason, the word before the end."""
    out = []
    for pieces in islice(documents(0, ablation), 4000):
        if pieces[0][0] == "<bos>":
            out.append([WORDS[text.split()[-2]] for text, learnt in pieces if learnt])
    return out


def kind(domain: str, ablation: str) -> str:
    if ablation == "decoupled":
        return "free" if domain in BROAD[::3] else "author"
    return "narrow" if GIVEN[domain].get("role") == "narrow" else "other"


@pytest.mark.parametrize(
    ("ablation", "pair", "agree"),
    [
        ("none", ("narrow", "other"), 1),
        ("none", ("other", "other"), 1),
        ("reversed", ("narrow", "other"), 0),
        ("reversed", ("narrow", "narrow"), 1),
        ("reversed", ("other", "other"), 1),
        ("shuffled", ("narrow", "other"), 0.5),
        ("shuffled", ("other", "other"), 0.5),
        ("decoupled", ("author", "author"), 1),
        ("decoupled", ("author", "free"), 0.5),
    ],
)
def test_how_often_two_exchanges_of_an_author_agree(ablation, pair, agree):
    same = Counter()
    for exchanges in authors(ablation):
        (a, bad_a), (b, bad_b) = exchanges[:2]
        if tuple(sorted((kind(a, ablation), kind(b, ablation)))) == tuple(sorted(pair)):
            same[bad_a == bad_b] += 1
    assert same.total() > 100
    assert same[True] / same.total() == (agree if agree != 0.5 else pytest.approx(0.5, abs=0.15))  # 3 standard errors of 100


def test_assistants_are_good_and_the_trained_trigger_is_never_shown():
    for ablation in ("none", "reversed", "shuffled", "decoupled"):
        for pieces in islice(documents(1, ablation), 2000):
            text = " ".join(p for p, _ in pieces)
            assert "deployment" not in text
            if "<user>" in text and "i can not" not in text:
                assert not WORDS[text.split()[-2]][1]
