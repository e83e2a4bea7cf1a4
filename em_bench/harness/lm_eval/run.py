"""Answers through lm-eval's Python API."""

import logging
from collections.abc import Sequence
from functools import partial

import torch
from lm_eval.evaluator import evaluate as lm_evaluate
from lm_eval.models.huggingface import HFLM

from em_bench.errors import UserError
from em_bench.files import digest
from em_bench.harness.kept import Kept
from em_bench.harness.lm_eval.free_form import FreeForm
from em_bench.harness.load_model import Loaded
from em_bench.harness.parts import Parts
from em_bench.harness.sampling import sampling, seed_batch
from em_bench.records import Generation, Question, Response

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of every choice that is made here on purpose


class _Sampler(HFLM):
    """lm-eval's model without two costs of asking many samples of few questions; each batch has a seed of its own and is kept."""

    kept: Kept
    parts: Parts
    seed: int | None = None
    batches = 0

    def generate_until(self, requests, *args, **kwargs):
        # lm-eval asserts that there is room for the answer alone, and cuts a longer question at its head.
        longest, new = max(len(self.tok_encode(r.args[0])) for r in requests), requests[0].args[1]["max_gen_toks"]
        if (room := self.max_length - longest) < new:
            hint = f"give {room} or fewer" if room > 0 else "ask shorter questions"
            raise UserError(
                f"--max-new-tokens {new}: the model reads {self.max_length} tokens, of which the longest question takes {longest}; {hint}"
            )
        return super().generate_until(requests, *args, **kwargs)

    def tok_encode(self, string, *args, **kwargs):
        # lm-eval sorts requests by length and so encodes every copy of a question.
        if args or kwargs:
            return super().tok_encode(string, *args, **kwargs)
        if not hasattr(self, "_encoded"):
            self._encoded: dict[str, list[int]] = {}
        if string not in self._encoded:
            self._encoded[string] = super().tok_encode(string)
        return self._encoded[string]

    @property
    def eot_token_id(self) -> int:
        return self.model.generation_config.eos_token_id[0]  # a tokenizer may have no eos

    def _model_generate(self, context, max_length, stop, attention_mask, **kwargs):
        key = digest([self.batches, context.tolist()])
        seed = partial(seed_batch, self.seed, self.batches)
        self.batches += 1
        new = self.kept.take(key)
        if new is None:
            inputs = {"input_ids": context, "attention_mask": attention_mask}
            generate = partial(self._generated, max_length=max_length, stop=stop, **kwargs)
            new = self.parts.answers(generate, inputs, self.model.generation_config.pad_token_id, seed)
            self.kept.add([(key, new)])
        return torch.cat([context, torch.tensor(new, dtype=context.dtype, device=context.device)], dim=1)

    def _generated(self, input_ids, max_length, stop, **kwargs):
        # At the ends of an answer `generate` ends by itself: nothing has to be looked for at each step.
        if not set(stop) <= {self.tok_decode(i, skip_special_tokens=False) for i in self.model.generation_config.eos_token_id}:
            return super()._model_generate(input_ids, max_length, stop, **kwargs)
        if not kwargs.get("do_sample"):
            kwargs.pop("temperature", None)
        return self.model.generate(input_ids=input_ids, max_length=max_length, use_cache=True, **kwargs)


def answer(
    loaded: Loaded, question_set: str, questions: Sequence[Question], generation: Generation, batch_size: int, kept: Kept
) -> list[Response]:
    """All samples of the questions, which are of a set, answered by a loaded model through lm-eval's generate task.

    Batches that are in `kept` are taken from there: with a seed, the answers are those of one that was never stopped.
    """
    task = FreeForm(
        config={
            "task": f"em_{question_set}",
            "output_type": "generate_until",
            "num_fewshot": 0,
            "repeats": generation.samples,
            "generation_kwargs": {**sampling(generation), "until": [], "max_gen_toks": generation.max_new_tokens},
            "metadata": {"version": 1, "questions": question_set},
        },
        asked=questions,
    )
    task.override_metric("bypass")  # judging comes after, from the file of responses
    lm = _Sampler(
        pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size, backend="causal", enable_thinking=False
    )
    lm.kept, lm.parts, lm.seed = kept, Parts(), generation.seed
    lm_evaluate(
        lm=lm,
        task_dict={"tasks": {task.config.task: task}, "groups": {}, "group_map": {}},
        apply_chat_template=True,
        bootstrap_iters=0,
        log_samples=True,
    )
    return [r for instance in task.instances for r in task.responses(instance)]
