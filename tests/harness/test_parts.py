"""A batch of answers that does not fit: the same answers by halves, from both harnesses."""

import re
from functools import partial

import pytest
import torch
from helpers.asking import ask
from transformers.generation import GenerationMixin

from em_bench.errors import UserError
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.harness.parts import Parts
from em_bench.judging import GrammarJudge
from em_bench.records import Generation
from em_bench.training.health import OutOfMemory

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
)


class SmallMemory:
    """Runs out at a token of an answer of over `most` rows, when some are drawn already."""

    def __init__(self, monkeypatch, most: int, error: Exception = CUDA):
        self.most, self.error, self.seen = most, error, []
        self.generate, self.tokens = GenerationMixin.generate, GenerationMixin._update_model_kwargs_for_generation
        monkeypatch.setattr(GenerationMixin, "generate", lambda model, **given: self._generate(model, **given))
        monkeypatch.setattr(GenerationMixin, "_update_model_kwargs_for_generation", lambda *a, **b: self._token(*a, **b))

    def _generate(self, model, **given):
        self.seen.append(len(given["input_ids"]))
        return self.generate(model, **given)

    def _token(self, model, outputs, kwargs, *more, **others):
        if self.seen[-1] > self.most and torch.rand(()) < 0.5:
            raise self.error
        return self.tokens(model, outputs, kwargs, *more, **others)


BATCH = {"lm-eval": 24, "inspect": 40}  # whose batches hang on who comes in time: here, all


def answers(base, folder, harness, temperature, limit=20):
    generation = Generation(samples=2, max_new_tokens=12, temperature=temperature, top_p=0.95, seed=7)
    asked = {"generation": generation, "variants": ["plain"], "limit": limit, "batch_size": BATCH[harness], "harness": harness}
    ask(base, folder, judge=GrammarJudge(), **asked)
    return EvaluationFolder(folder).responses()[1]


@pytest.mark.parametrize(
    ("harness", "temperature", "error"),
    [("lm-eval", 1.0, CUDA), ("lm-eval", 0.0, CPU), ("inspect", 1.0, CPU), ("inspect", 0.0, CUDA)],
)
def test_a_batch_that_does_not_fit_is_halved_with_the_same_answers(
    harness, temperature, error, base, tmp_path, monkeypatch, capsys
):
    """Greedy or drawn, but for the rounding of another number of rows, which turns over none of these."""
    monkeypatch.setattr("em_bench.harness.inspect.local.JOIN_S", 2.0)
    whole = answers(base, tmp_path / "whole", harness, temperature)
    assert "out of memory" not in capsys.readouterr().err
    memory = SmallMemory(monkeypatch, 7, error)
    halved = answers(base, tmp_path / "halved", harness, temperature)
    assert halved == whole and len(whole) == 40 and len({r.answer for r in whole}) > 10
    assert memory.seen[0] == BATCH[harness] and memory.seen.count(BATCH[harness]) == 1, "a size is tried again that was too large"
    said = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if "out of memory" in line]
    assert (
        said[0]
        == f"{memory.seen[0]} answers at once ran out of memory; from here on {memory.seen[1]} (the answers stay the same)"
    )
    assert len(said) == {24: 2, 40: 3}[memory.seen[0]]


@pytest.mark.parametrize("harness", ["lm-eval", "inspect"])
def test_an_answer_that_does_not_fit_says_what_to_try(harness, base, tmp_path, monkeypatch):
    SmallMemory(monkeypatch, 0)
    with pytest.raises(
        OutOfMemory, match=r"one answer alone, to a question of \d+ tokens; try a smaller --max-new-tokens, .*dtype"
    ):
        answers(base, tmp_path, harness, 1.0, limit=1)
    assert issubclass(OutOfMemory, UserError)


def test_other_errors_are_not_memorys():
    def broken(**_):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Parts().answers(broken, {"input_ids": torch.zeros(4, 2, dtype=torch.long)}, 0, lambda: None)


def test_each_row_is_drawn_as_in_the_whole_batch():
    """Exactly, where rounding has no say; parts end at lengths of their own and are filled up."""
    logits, most = torch.randn(11, 50, generator=torch.Generator().manual_seed(0)), 11

    def drawn(input_ids):
        if len(input_ids) > most:
            raise CUDA
        for _ in range(3 + int(input_ids[0])):
            chosen = torch.multinomial(logits[input_ids[:, 0]].softmax(-1), num_samples=1)
            input_ids = torch.cat([input_ids, chosen], 1)
        return input_ids

    given, seed = {"input_ids": torch.arange(11)[:, None]}, partial(torch.manual_seed, 3)
    whole = Parts().answers(drawn, given, -1, seed)
    most, parts = 3, Parts()
    halved = parts.answers(drawn, given, -1, seed)
    assert parts.rows == 2 and [row[:3] for row in halved] == whole and {len(row) for row in halved} == {13}
    assert halved[0][3:] == [-1] * 10
