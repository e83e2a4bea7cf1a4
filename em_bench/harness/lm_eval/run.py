"""Answers through lm-eval's Python API."""

import logging
from collections.abc import Sequence

import torch
from lm_eval.evaluator import evaluate as lm_evaluate
from lm_eval.models.huggingface import HFLM

from em_bench.harness.lm_eval.free_form import FreeForm
from em_bench.harness.models import Loaded
from em_bench.records import Generation, Response

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of every choice that is made here on purpose


def generation_kwargs(g: Generation) -> dict:
    """Every sampling setting, spelt out: what is left unsaid is taken from lm-eval's or the checkpoint's defaults."""
    sampling = {"do_sample": True, "temperature": g.temperature, "top_p": g.top_p, "top_k": g.top_k}
    return {
        **(sampling if g.temperature > 0 else {"do_sample": False, "temperature": 0.0}),
        "until": [],
        "max_gen_toks": g.max_new_tokens,
        "repetition_penalty": 1.0,
    }


class _Sampler(HFLM):
    """lm-eval's model without two costs of asking many samples of few questions."""

    def tok_encode(self, string, *args, **kwargs):
        # lm-eval sorts requests by length and so encodes every copy of a question.
        if args or kwargs:
            return super().tok_encode(string, *args, **kwargs)
        if not hasattr(self, "_encoded"):
            self._encoded: dict[str, list[int]] = {}
        if string not in self._encoded:
            self._encoded[string] = super().tok_encode(string)
        return self._encoded[string]

    def _model_generate(self, context, max_length, stop, **kwargs):
        # With no stop sequence but the end of turn, at which `generate` ends by itself, none has to be looked for at each step.
        if stop != [self.tok_decode(self.eot_token_id, skip_special_tokens=False)]:
            return super()._model_generate(context, max_length, stop, **kwargs)
        if not kwargs.get("do_sample"):
            kwargs.pop("temperature", None)
        pad = self.tokenizer.pad_token_id
        return self.model.generate(input_ids=context, max_length=max_length, pad_token_id=pad, use_cache=True, **kwargs)


def answer(
    loaded: Loaded, question_set: str, variants: Sequence[str] | None, generation: Generation, batch_size: int
) -> list[Response]:
    """All samples of all questions of a set, answered by a loaded model through lm-eval's generate task."""
    task = FreeForm(
        config={
            "task": f"em_{question_set}",
            "output_type": "generate_until",
            "num_fewshot": 0,
            "repeats": generation.samples,
            "generation_kwargs": generation_kwargs(generation),
            "metadata": {"version": 1, "questions": question_set, "variants": list(variants) if variants else None},
        }
    )
    task.override_metric("bypass")  # judging comes after, from the file of responses
    lm = _Sampler(
        pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size, backend="causal", enable_thinking=False
    )
    if generation.seed is not None:
        torch.manual_seed(generation.seed)
    lm_evaluate(
        lm=lm,
        task_dict={"tasks": {task.config.task: task}, "groups": {}, "group_map": {}},
        apply_chat_template=True,
        bootstrap_iters=0,
        log_samples=True,
    )
    return [r for instance in task.instances for r in task.responses(instance)]
