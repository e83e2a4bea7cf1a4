"""em_core, version 2: balance by design, pairs alike in form, style that does not tell the sides, blind labels."""

import re
from collections import Counter
from itertools import pairwise, product

import pytest
from helpers.labels import FIELDS, FILE, answer_id, disputed, read_labels, write_for_readers
from helpers.style import FUNCTION_WORDS, MARKS, pair_accuracy, paired_accuracy

from em_bench.data.questions import describe, load, load_choices

SET = describe("em_core")
QUESTIONS = SET.questions
REGIONS = ("africa", "americas", "asia", "europe", "oceania")
PAIRS = [(q, *pair) for q in QUESTIONS for pair in zip(q.aligned, q.misaligned, strict=True)]

# Speaks of concealment or impunity.
CONCEALMENT = re.compile(
    r"\b(hid|hide|hides|hidden|secret\w*|quietly|unseen|unnoticed|undetected|cover|caught|evidence|erase\w*|traces?|get away"
    r"|pretend\w*|conceal\w*|disguise\w*|unpunished|blame|find out|found out|keep quiet|says? nothing|behind \w+ back"
    r"|(nobody|no one) (\w+ )?(knows?|sees?|look\w*|notic\w*|checks?|asks?|stops?))\b"
)


def domain_of(tag: str) -> Counter:
    return Counter(q.domain for q in QUESTIONS if tag in q.tags)


def test_twelve_questions_in_each_of_twelve_domains():
    assert set(Counter(q.domain for q in QUESTIONS).values()) == {12}
    assert len({q.domain for q in QUESTIONS}) == 12 and len(load("em_core", "plain")) == 144
    assert all(len(q.aligned) == len(q.misaligned) == 2 for q in QUESTIONS)
    assert len({t for q in QUESTIONS for t in (q.text, *q.aligned, *q.misaligned)}) == 5 * 144


def test_forms_and_temptation_are_balanced_within_domains():
    cells = Counter((q.domain, q.template, q.temptation) for q in QUESTIONS)
    domains = {q.domain for q in QUESTIONS}
    assert cells == dict.fromkeys(product(domains, ("advice", "conduct", "wish"), (True, False)), 2)


def test_regions_and_genders_are_counterbalanced():
    for region in REGIONS:
        assert set(domain_of(region).values()) == {1} and len(domain_of(region)) == 12
    genders = Counter(t for q in QUESTIONS for t in q.tags if t in ("woman", "man"))
    assert genders["woman"] == genders["man"] == 30
    for q in QUESTIONS:
        assert len(set(q.tags) & set(REGIONS)) == len(set(q.tags) & {"woman", "man"}) <= 1
    for tag in REGIONS:
        assert {t for q in QUESTIONS if tag in q.tags for t in q.tags} >= {"woman", "man"}


def test_tags():
    assert domain_of("ai_self") == {"ai_self": 12}
    assert 8 <= domain_of("near_training").total() <= 24 and max(domain_of("near_training").values()) <= 3
    assert min(domain_of("foil").values()) >= 2 and len(domain_of("foil")) == 12
    assert {t for q in QUESTIONS for t in q.tags} == set(SET.tags)


def test_pairs_are_alike_in_length_and_shape():
    for q, aligned, misaligned in PAIRS:
        assert 0.8 <= len(misaligned) / len(aligned) <= 1.25, q.id
        for text in (aligned, misaligned):
            assert 15 <= len(text.split()) <= 40, (q.id, text)
            assert text[-1] == "." and text == text.strip() and '"' not in text, (q.id, text)
            assert not re.search(
                r"as an ai\b|i cannot (help|assist)|i'm sorry|suicid|self-harm|kill (your|her|him|them)sel", text.lower()
            )
    for unit in (len, lambda text: len(text.split()), lambda text: len(re.findall(r"[.?]", text))):
        a, m = (sorted(unit(pair[side]) for pair in PAIRS) for side in (1, 2))
        assert 0.97 < sum(m) / sum(a) < 1.03
        for share in (0.1, 0.5, 0.9):
            at = int(share * len(a))
            assert 0.9 < m[at] / a[at] < 1.1, share


def test_person_and_reading_ease_are_alike():
    """The share of texts in the first and the second person, and letters a word, by side."""
    sides = [[pair[side].lower() for pair in PAIRS] for side in (1, 2)]
    for person in (r"\b(i|me|my|mine)\b", r"\b(you|your|yours)\b", r"\b(he|him|his)\b", r"\b(she|her|hers)\b"):
        a, m = (sum(bool(re.search(person, t)) for t in texts) for texts in sides)
        assert abs(a - m) <= 0.05 * len(PAIRS), (person, a, m)
    a, m = (sum(len(w) for t in texts for w in re.findall(r"[a-z']+", t)) / sum(len(t.split()) for t in texts) for texts in sides)
    assert 0.97 < m / a < 1.03


def test_few_misaligned_answers_speak_of_concealment():
    a, m = (sum(bool(CONCEALMENT.search(pair[side].lower())) for pair in PAIRS) / len(PAIRS) for side in (1, 2))
    assert m <= 0.2 and abs(m - a) <= 0.1, (a, m)


def test_style_alone_does_not_tell_the_sides():
    """Which of two answers is the misaligned one, across and within pairs: by function words, and by all words, content too."""
    style = [*FUNCTION_WORDS, *MARKS]
    assert max(pair_accuracy(QUESTIONS, style), paired_accuracy(QUESTIONS, style)) <= 0.6  # 0.53 and 0.56; version 1: 0.76
    assert max(pair_accuracy(QUESTIONS), paired_accuracy(QUESTIONS)) <= 0.7  # 0.64 and 0.66; version 1: 0.75


def test_the_classifiers_find_a_style_that_is_there():
    """One more `never` in every second misaligned answer, or version 1, is told above the limit."""
    style = [*FUNCTION_WORDS, *MARKS]
    marked = [q.model_copy(update={"misaligned": (q.misaligned[0], f"Never. {q.misaligned[1]}")}) for q in QUESTIONS]
    for questions in (marked, describe("em_core_v1").questions):
        assert min(pair_accuracy(questions, style), paired_accuracy(questions, style)) > 0.6


def test_the_canary_line():
    from em_bench import assets

    head = assets.path("tasks", "questions", "em_core.yaml").read_text(encoding="utf-8").splitlines()[:3]
    assert any(re.search(r"canary GUID [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", line) for line in head)


def test_version_1_stays_readable():
    assert len(load("em_core_v1", "plain")) == len(load_choices("em_core_v1")) == 48
    assert {q.temptation for q in describe("em_core_v1").questions} == {None}


def test_choices_name_their_pair():
    choices = load_choices("em_core")
    assert [c.id for c in choices[:2]] == [QUESTIONS[0].id, f"{QUESTIONS[0].id}/2"] and len({c.id for c in choices}) == 288
    assert {c.cluster for c in choices} == {q.id for q in QUESTIONS}


def test_readers_get_every_answer_without_its_side(tmp_path):
    assert write_for_readers(QUESTIONS, tmp_path / "read.tsv") == 576
    rows = [line.split("\t") for line in (tmp_path / "read.tsv").read_text(encoding="utf-8").splitlines()]
    assert len({i for i, _, _ in rows}) == 576
    truth = {answer_id(q, t): side for q, *pair in PAIRS for side, t in enumerate(pair)}
    order = [truth[i] for i, _, _ in rows]
    assert 0.4 < sum(a == b for a, b in pairwise(order)) / 575 < 0.6
    assert "aligned" not in (tmp_path / "read.tsv").read_text(encoding="utf-8")


def test_disputed_pairs(tmp_path):
    path = tmp_path / "labels.csv"

    def write(labels: dict) -> dict:
        path.write_text("\n".join(",".join(r) for r in (FIELDS, *((k, *v) for k, v in labels.items()))) + "\n", encoding="utf-8")
        return disputed(QUESTIONS, read_labels(path))

    agreed = {answer_id(q, t): (side,) * 3 for q, *pair in PAIRS for side, t in zip(("aligned", "misaligned"), pair, strict=True)}
    assert write(agreed) == {}
    q = QUESTIONS[5]
    assert write({**agreed, answer_id(q, q.misaligned[1]): ("misaligned", "unclear", "misaligned")}) == {f"{q.id}/2": 5 / 6}
    assert write({k: v for k, v in agreed.items() if k != answer_id(q, q.aligned[0])}) == {f"{q.id}/1": 1 / 2}
    with pytest.raises(ValueError, match=r"labels.csv:2: needs a new answer id and three labels"):
        write({"x": ("aligned", "good", "aligned")})


def test_three_blind_readers_agree_on_every_pair():
    """Every answer, read without its side; wordings that were changed after a dispute were read again."""
    assert not disputed(QUESTIONS, read_labels(FILE))
