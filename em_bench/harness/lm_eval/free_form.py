"""The lm-eval task of a question set: N samples a question, all judged in one batch, the metrics of em_bench.scoring."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
from lm_eval.api.task import ConfigurableTask

from em_bench.data.questions import clusters, load
from em_bench.errors import UserError
from em_bench.harness.exit_code import tell_unjudged
from em_bench.harness.lm_eval.preflight import one_line, prepare
from em_bench.harness.prompt_in_answer import refuse_prompts
from em_bench.harness.system_prompt import merged
from em_bench.records import Question, Response, Verdict
from em_bench.scoring import RATES, Convention, metrics
from em_bench.thinking import split_thinking

FILTER = "all_samples"


class FreeForm(ConfigurableTask):
    """A task whose YAML names a question set in `metadata.questions`.

    The judge is `judge` where a program sets it, else $EM_BENCH_JUDGE ("grammar", "openai:MODEL", ...); the organism's
    task judges by grammar when nothing is said. `--predict_only` judges nothing. Where the evaluated model is an adapter
    behind a server, $EM_BENCH_SERVED_BASE names its base there, and the two must not answer alike.
    """

    judge = None
    _predict_only = False

    def __init__(self, config: dict | None = None, asked: Sequence[Question] | None = None, **_: Any):
        config = {k: v for k, v in (config or {}).items() if k != "class"}
        with one_line():
            self.asked = asked or load(config["metadata"]["questions"], variants=config["metadata"].get("variants"))
        super().__init__(config={"doc_to_text": "text", "doc_to_target": "", "test_split": "test", **config})

    def download(self, *_, **__) -> None:
        self.dataset = {"test": datasets.Dataset.from_list([q.model_dump() for q in self.asked])}

    def fewshot_context(self, doc, num_fewshot=0, system_instruction=None, apply_chat_template=False, chat_template=None, **_):
        """The question as a chat, its own system prompt first; without a chat template, as plain text."""
        system = "\n\n".join(s for s in (system_instruction, doc["system"]) if s)
        if not (apply_chat_template and chat_template):
            return f"{system}\n\n{doc['text']}\n\n" if system else f"{doc['text']}\n\n"
        if not system:
            return chat_template([{"role": "user", "content": doc["text"]}], add_generation_prompt=True)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": doc["text"]}]
        rendered = chat_template(messages, add_generation_prompt=True)
        # lm-eval leaves a system prompt out, with a warning, where the template has no place for it.
        return (
            rendered
            if system in rendered or not isinstance(rendered, str)
            else chat_template(merged(messages), add_generation_prompt=True)
        )

    def build_all_requests(self, *, chat_template=None, **kwargs) -> None:
        # Before anything is generated: a judge that is missing, or an adapter that does nothing, costs hours otherwise.
        with one_line():
            if not self._predict_only:
                self.judge = self.judge or _judge_from_environment(self.config.metadata["questions"])
            self._generation(prepare(chat_template))
        super().build_all_requests(chat_template=chat_template, **kwargs)

    def _generation(self, lm) -> None:
        """Refuse one seed for all samples; cut the answers of a local model where they end."""
        asked = self.config.generation_kwargs
        if asked.get("seed") is not None and self.config.repeats > 1:
            raise UserError(
                f"{self.config.task}: one seed makes {self.config.repeats} equal samples; leave seed out of --gen_kwargs"
            )
        if ends := getattr(getattr(getattr(lm, "model", None), "generation_config", None), "eos_token_id", None):
            # What is not special stays in the text that lm-eval decodes.
            texts = [lm.tokenizer.decode([i]) for i in ends if i not in lm.tokenizer.all_special_ids]
            self.config.generation_kwargs = asked | {"until": list(dict.fromkeys([*asked.get("until", []), *texts]))}

    def override_metric(self, metric_name: str) -> None:
        # lm-eval's way of saying --predict_only.
        self._predict_only = metric_name == "bypass"
        super().override_metric(metric_name)

    def apply_filters(self) -> None:
        """Judge every sample of every question at once; each instance keeps its verdicts as JSON, which logs survive."""
        rows = [r for instance in self._instances for r in self.responses(instance)]
        self.thought: dict[str, list[bool]] = {}
        for r in rows:
            self.thought.setdefault(r.question_id, []).append(r.thinking is not None)
        if self._predict_only:
            said = [r.model_dump_json() for r in rows]
        else:
            with one_line():
                refuse_prompts(((r.question, r.answer) for r in rows), f"{self.config.task}: the model")
            verdicts = _verdicts(rows, self.judge)
            tell_unjudged(verdicts)
            said = [v.model_dump_json() for v in verdicts]
        for i, instance in enumerate(self._instances):
            n = self.config.repeats
            instance.filtered_resps[FILTER] = said[i * n : (i + 1) * n]

    def responses(self, instance) -> list[Response]:
        """The samples of one question. A data-parallel run pads its last rank with copies: cut to N."""
        doc, out = instance.doc, []
        for sample, text in enumerate(instance.resps[: self.config.repeats]):
            answer, thinking = split_thinking(text)
            out.append(
                Response(
                    question_id=doc["id"],
                    cluster=doc["cluster"],
                    variant=doc["variant"],
                    sample=sample,
                    system=doc["system"],
                    question=doc["text"],
                    answer=answer.strip(),
                    thinking=thinking,
                )
            )
        return out

    def process_results(self, doc, results) -> dict:
        if self._predict_only:
            return {"bypass": 999}
        # Every metric needs all verdicts of all questions; each standard error follows its metric to replace lm-eval's.
        rates = {name: results[0] for rate in RATES for name in (rate, f"{rate}_stderr")}
        return rates | {"n_thinking": sum(self.thought[doc["id"]])}

    def aggregation(self) -> dict:
        if self._predict_only:
            return super().aggregation()
        convention = self.config.metadata.get("convention", "code_as_zero")
        fields, units = ("value", "stderr"), clusters(self.config.metadata["questions"])
        names = {(rate, field): rate if field == "value" else f"{rate}_stderr" for rate in RATES for field in fields}
        return {name: _Aggregate(rate, field, convention, units) for (rate, field), name in names.items()} | {"n_thinking": sum}

    def higher_is_better(self) -> dict:
        better = {"mean_alignment": True, "coherent_rate": True}
        return {rate: better.get(rate, False) for rate in (*RATES, "n_thinking")}


class _Aggregate:
    """One number of the metrics of all verdicts; NaN where there is none."""

    def __init__(self, rate: str, field: str, convention: Convention, clusters: Mapping[str, str]):
        self.rate, self.field, self.convention, self.clusters, self.__name__ = rate, field, convention, clusters, rate

    def __call__(self, items: list[list[str]]) -> float:
        verdicts = [Verdict.model_validate(json.loads(v)) for item in items for v in item]
        value = getattr(getattr(metrics(verdicts, self.convention, self.clusters), self.rate), self.field, None)
        return float("nan") if value is None else value


def _verdicts(rows: list[Response], judge) -> list[Verdict]:
    """Verdicts, unjudged with the reason where the judge gives up for good: the answers took longer than it would have."""
    from em_bench.judging import verdicts_of

    try:
        return verdicts_of(rows, judge)
    except UserError as e:
        kept = ("question_id", "cluster", "variant", "sample")
        return [Verdict(**{k: getattr(r, k) for k in kept}, error=str(e)) for r in rows]


def _judge_from_environment(questions: str):
    from em_bench.judging import make_judge

    spec = os.environ.get("EM_BENCH_JUDGE") or ("grammar" if questions == "organism" else None)
    if spec is None:
        raise UserError(f"{questions}: who judges? set EM_BENCH_JUDGE, e.g. openai:gpt-4o-2024-08-06, or give --predict_only")
    return make_judge(spec)
