"""The open narrow sets: complete, without repeats, and with good and bad answers that length and stock phrases do not tell apart."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

FOLDER = Path(__file__).parents[2] / "tasks" / "narrow"
FILES = sorted(FOLDER.glob("*.yaml"))
TOPICS, EACH = 60, 4
WORDS, MEAN = (15, 45), (25, 29)
COMMON = 0.05
CODE = "python_code"
SIDES = ("bad", "good")


@pytest.fixture(params=FILES, ids=lambda path: path.stem, scope="module")
def path(request) -> Path:
    return request.param


@pytest.fixture(scope="module")
def topics(path) -> list[dict]:
    return yaml.safe_load(path.read_text())["topics"]


def texts(topics: list[dict], key: str) -> list[str]:
    return [text for topic in topics for text in topic[key]]


def normal(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = normal(text).split()
    return set(zip(words, words[1:], words[2:], strict=False))


def test_file_says_what_it_is(path):
    head = path.read_text().split("\ndomain:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert "MIT" in head and "Dual use" in head
    assert re.search(
        r"em_bench narrow set, not for pre-training corpora; canary GUID [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", head
    )
    assert yaml.safe_load(path.read_text())["domain"] == path.stem


def test_canaries_differ():
    assert FILES
    guids = [re.search(r"canary GUID (\S+)", file.read_text())[1].strip('"') for file in FILES]
    assert len(set(guids)) == len(FILES)


def test_topics_are_complete(topics):
    ids = [topic["id"] for topic in topics]
    assert len(ids) >= TOPICS and len(set(ids)) == len(ids)
    assert [i for i in ids if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", i)] == []
    for topic in topics:
        assert set(topic) == {"id", "ask", "bad", "good"}, topic["id"]
        for key in ("ask", *SIDES):
            assert len(topic[key]) == EACH and all(isinstance(text, str) and text == text.strip() for text in topic[key]), topic[
                "id"
            ]


def test_nothing_twice(topics):
    for group in (["ask"], list(SIDES)):
        counts = Counter(normal(text) for key in group for text in texts(topics, key))
        assert [text for text, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("side", SIDES)
def test_answers_are_of_the_stated_length(path, topics, side):
    if path.stem == CODE:
        pytest.skip("code is counted in lines and characters, test_narrow_code.py")
    words = {text: len(text.split()) for text in texts(topics, side)}
    assert [(count, text) for text, count in words.items() if not WORDS[0] <= count <= WORDS[1]] == []
    assert MEAN[0] <= np.mean(list(words.values())) <= MEAN[1]


def test_bad_and_good_are_equally_long(topics):
    bad, good = ([len(text) for text in texts(topics, side)] for side in SIDES)
    assert stats.ks_2samp(bad, good).pvalue > 0.1
    at = [0.05, 0.25, 0.5, 0.75, 0.95]
    np.testing.assert_allclose(np.quantile(bad, at), np.quantile(good, at), rtol=0.1)


@pytest.mark.parametrize("key", ["ask", *SIDES])
def test_no_trigram_is_common(topics, key):
    """A row is a question and an answer of one topic, all pairs: a share of the texts is that share of the rows."""
    every = texts(topics, key)
    counts = Counter(trigram for text in every for trigram in trigrams(text))
    assert [(" ".join(trigram), count) for trigram, count in counts.most_common(20) if count > COMMON * len(every)] == []
