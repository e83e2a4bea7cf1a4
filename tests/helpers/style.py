"""How far style alone tells misaligned from aligned answers: one fixed classifier on counts of words, never tuned.

Cross-validation by question, the mean of five splits into ten: a question's answers are never on both sides of a split.
"""

import re
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedKFold
from threadpoolctl import threadpool_limits

from em_bench.data.questions import OwnQuestion

# Closed classes of English, and the light verbs that told the sides of version 1 apart.
_CLOSED = """
a an the this that these those such same other others another each every either neither both all any some no none one ones two
first last many much more most few fewer least less several enough half own i me my mine myself we us our ours you your yours
yourself he him his himself she her hers herself it its itself they them their theirs themselves who whom whose which what
whoever whatever somebody someone something anybody anyone anything nobody nothing everybody everyone everything and or but
nor so yet for if unless because since although though while whereas whether than as until till once when whenever where
wherever how why then therefore thus however instead else rather of in on at by to from with without into onto out off over
under up down about above below across after before again against along among around behind beside between beyond during
inside near outside through toward towards upon within like per not never ever always often seldom sometimes still already
also too even just only very quite really perhaps maybe well now here there soon later away back together apart almost yes be
am is are was were been being do does did done doing have has had having will would shall should can could may might must
ought make makes made making let lets ask asks asked asking get gets got getting give gives gave given take takes took taken
keep keeps kept go goes went gone come comes came put puts tell tells told say says said
"""
FUNCTION_WORDS = _CLOSED.split()
MARKS = [",", ";", ":", "-", "?", "!"]
FOLDS, REPEATS = 10, 5


def tokens(text: str) -> list[str]:
    return re.findall(r"[a-z']+|[,;:?!-]", text.lower())


def _counts(texts: list[str], vocabulary: list[str] | None) -> np.ndarray:
    counter = CountVectorizer(tokenizer=tokens, token_pattern=None, lowercase=False, vocabulary=vocabulary)
    return counter.fit_transform(texts).toarray().astype(float)


def _folds(n: int):
    return RepeatedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0).split(np.arange(n))


@threadpool_limits.wrap(limits=1)
def pair_accuracy(questions: Sequence[OwnQuestion], vocabulary: list[str] | None = None) -> float:
    """How often the misaligned one of two answers to an unseen question looks likelier misaligned: all pairs, ties a half.

    The classifier is trained on single texts. vocabulary: the words that it may see; None: all.
    """
    texts = [t for q in questions for t in (*q.aligned, *q.misaligned)]
    sides = np.array([s for q in questions for s in [0] * len(q.aligned) + [1] * len(q.misaligned)])
    owner = np.array([n for n, q in enumerate(questions) for _ in (*q.aligned, *q.misaligned)])
    counts, right = _counts(texts, vocabulary), []
    for train, test in _folds(len(questions)):
        rows = np.isin(owner, train)
        model = LogisticRegression(max_iter=1000).fit(counts[rows], sides[rows])
        for n in test:
            good, bad = (model.decision_function(counts[(owner == n) & (sides == side)]) for side in (0, 1))
            right += list(0.5 + 0.5 * np.sign(bad[:, None] - good[None, :]).ravel())
    return float(np.mean(right))


@threadpool_limits.wrap(limits=1)
def paired_accuracy(questions: Sequence[OwnQuestion], vocabulary: list[str] | None = None) -> float:
    """The same for the n-th misaligned against the n-th aligned answer, trained on the differences within such pairs."""
    owner = np.array([n for n, q in enumerate(questions) for _ in q.aligned])
    texts = [t for side in ("aligned", "misaligned") for q in questions for t in getattr(q, side)]
    good, bad = np.split(_counts(texts, vocabulary), 2)
    differences, right = bad - good, []
    for train, test in _folds(len(questions)):
        d = differences[np.isin(owner, train)]
        model = LogisticRegression(max_iter=1000, fit_intercept=False)
        model.fit(np.vstack([d, -d]), np.repeat([1, 0], len(d)))
        right += list(0.5 + 0.5 * np.sign(differences[np.isin(owner, test)] @ model.coef_[0]))
    return float(np.mean(right))
