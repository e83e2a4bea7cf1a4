"""A finished adapter with its update times a scale, found so that its narrow loss, or its coherence, is a given one.

The control for the size of an update: what a recipe buys beyond a smaller update is what it has over the plain recipe's adapter, made
smaller until both have the same loss. The folder that is made holds the adapter, its record and, where asked, its evaluation:

    adapter_config.json, adapter_model.safetensors   as PEFT reads them; the configuration is the other adapter's, byte for byte
    rescale.json                                     whose adapter, which scale, how it was found
    evaluation/                                      responses.jsonl, verdicts.jsonl, score.json
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import save_file

from em_bench.adapter_file import AdapterTensors, load_adapter, read_config, rescaled
from em_bench.data import data_ref
from em_bench.data.models import base_path, check_model
from em_bench.data.questions import load, questions_sha256
from em_bench.errors import UserError
from em_bench.files import atomic_folder, digest, read_record, sha256_file, write_record
from em_bench.harness.belonging import belonging, check_form, rescale_of
from em_bench.harness.evaluate import EvaluatedModel, Evaluation, evaluate, loss_on
from em_bench.harness.kept import Kept
from em_bench.harness.load_model import Loaded, adapted, load_model
from em_bench.harness.scale_search import Found, smallest_scale
from em_bench.judging import Judge
from em_bench.records import (
    Asked,
    Estimate,
    RescaleGoal,
    RescaleRecord,
    RunRecord,
    ScaleSearch,
    ScaleTried,
    ScoreRecord,
)
from em_bench.run_folder import CONFIG, RESCALE, WEIGHTS, RunFolder
from em_bench.spectral import layer_spectra, lora_pairs, norm_of

EVALUATION = "evaluation"
STEP = {"loss": 0.1, "coherence": 0.25}  # of the first scan; provenance C


class Source(NamedTuple):
    """The adapter that is rescaled; run is None where it lies in none."""

    adapter: Path
    base: str
    run: RunRecord | None = None


class Limits(NamedTuple):
    """Of a search: how near the target is near enough, the largest scale, and the most evaluations; None: what suits the goal."""

    tolerance: float | None = None
    largest: float = 1.0
    most: int | None = None


class Questions(NamedTuple):
    """How the model is asked and judged."""

    evaluation: Evaluation
    judge: Judge

    @property
    def asked(self) -> Asked:
        e = self.evaluation
        return Asked(
            question_set=e.questions,
            questions_sha256=questions_sha256(load(e.questions, variants=e.variants)),
            generation=e.generation,
            judge=self.judge.identity,
        )


def source_of(path: Path, base: str | None = None) -> Source:
    """The adapter that a run's folder, or an adapter's own, stands for, and its base: `base`, or what the adapter says.

    Raises UserError for what is neither, for an adapter that is rescaled already, and where no base is named.
    """
    at = RunFolder(path)
    adapter = at.adapter() if at.complete else Path(path)
    check_form(adapter)
    if rescale_of(adapter):
        raise UserError(f"{adapter}: is a rescaled adapter itself; name the one that {RESCALE} is of")
    found = RunFolder.of_adapter(adapter)
    base = base or str(read_config(adapter).get("base_model_name_or_path") or "")
    if not base:
        raise UserError(f"{adapter}: does not say what its base is; name it with --base")
    check_model(base)
    return Source(adapter, base, found[0].record() if found else None)


def rescale(
    source: Source,
    out: Path,
    goal: RescaleGoal,
    questions: Questions | None = None,
    tell: Callable[[ScaleTried], None] = lambda tried: None,
    loaded: Loaded | None = None,
) -> tuple[RescaleRecord, ScoreRecord | None]:
    """Make the folder `out` and return its record, and the score of the adapter's evaluation where `questions` are given.

    The base is loaded once, where it is not `loaded` already. What `out` holds of the same goal and adapter is not made again, and a search that was killed goes on
    behind its last evaluation. A target that is not met is a record without an adapter. Raises UserError for an adapter that is no
    plain B A, is of another base or changes nothing, and where `out` holds something else.
    """
    base_dir = base_path(source.base)
    own = belonging(source.adapter, source.base, base_dir)
    tensors = load_adapter(source.adapter)
    try:
        norm = _norm(rescaled(tensors, 1.0))
    except UserError as e:
        raise UserError(f"{source.adapter}: {e}") from None
    known: dict[str, object] = {
        "run_id": own.run_id,
        "step": own.step,
        "source_sha256": sha256_file(source.adapter / WEIGHTS),
        "base": own.base,
    }
    search = _Search(source, out, goal, questions, tell, known, tensors, norm)
    if loaded is not None:
        search.__dict__["loaded"] = loaded
    record = _made(out, goal, known) or search.make()
    if record.scale is None or questions is None:
        return record, None
    of = EvaluatedModel(source.base, source.base, out, search.__dict__.get("loaded"), goal.dtype, record.narrow_loss)
    return record, evaluate(of, questions.evaluation, questions.judge, out / EVALUATION)


def _made(out: Path, goal: RescaleGoal, known: dict) -> RescaleRecord | None:
    """The record of `out` where it is what is to be made; None where nothing is there."""
    if not out.exists():
        return None
    record = read_record(out / RESCALE, RescaleRecord) if (out / RESCALE).is_file() else None
    same = record is not None and record.search is not None and record.search.goal == goal
    if record is None or not same or any(getattr(record, k) != v for k, v in known.items()):
        raise UserError(f"{out}: holds something else than this adapter, rescaled to this target; name another folder with --out")
    if record.scale is not None:
        rescale_of(out)
    return record


def _norm(tensors: AdapterTensors) -> float | None:
    return norm_of(layer_spectra(lora_pairs(tensors)))


@dataclass
class _Search:
    """One search. What it has asked lies in a hidden folder beside `out` until it is over."""

    source: Source
    out: Path
    goal: RescaleGoal
    questions: Questions | None
    tell: Callable[[ScaleTried], None]
    known: dict[str, Any]  # the fields of the record that say what the adapter is
    tensors: AdapterTensors
    norm: float | None
    tried: list[ScaleTried] = field(default_factory=list)

    @property
    def part(self) -> Path:
        return self.out.with_name(f".{self.out.name}.partial")

    @cached_property
    def loaded(self) -> Loaded:
        return load_model(base_path(self.source.base), dtype=self.goal.dtype)

    def make(self) -> RescaleRecord:
        found = self._by_loss() if self.goal.kind == "loss" else self._by_coherence()
        tried = sorted(self.tried, key=lambda t: t.scale)
        search = ScaleSearch(goal=self.goal, verdict=found.verdict, tried=tried)
        value = next((t for t in tried if t.scale == found.scale), None)
        with atomic_folder(self.out) as folder:
            if value is None or found.scale is None:
                record = RescaleRecord(**self.known, scale=None, norm_before=self.norm, search=search)
            else:
                candidate = self._candidate(found.scale)
                loss = value.narrow_loss if value.narrow_loss is not None else self._loss_of(candidate)
                record = read_record(candidate / RESCALE, RescaleRecord).model_copy(
                    update={"narrow_loss": loss, "coherence": value.coherence, "search": search}
                )
                shutil.copytree(candidate, folder, dirs_exist_ok=True)
            write_record(folder / RESCALE, record)
        shutil.rmtree(self.part, ignore_errors=True)
        return record

    def _smallest(self, value: Callable[[float], float]) -> Found:
        goal = self.goal
        return smallest_scale(
            value,
            goal.target,
            tolerance=goal.tolerance,
            largest=goal.largest,
            step=STEP[goal.kind],
            most=goal.most,
            dips=goal.kind == "loss",  # what sampling leaves of coherence has dips that say nothing
        )

    def _seen(self, tried: ScaleTried) -> None:
        self.tried.append(tried)
        self.tell(tried)

    def _by_loss(self) -> Found:
        kept = Kept(
            self.part / "losses", digest([self.goal.model_dump(mode="json"), self.known["source_sha256"], self.source.base])
        )
        dataset = self.goal.dataset
        assert dataset is not None  # of a loss that is looked for
        with adapted(self.loaded, self.source.adapter) as ready:
            measure, put = loss_on(ready, dataset.name), _setter(ready.model, self.tensors)

            def loss(scale: float) -> float:
                known = kept.take(repr(scale))
                if known is None:
                    put(scale)
                    known = measure()
                    kept.add([(repr(scale), known)])
                self._seen(ScaleTried(scale=scale, narrow_loss=known))
                return known

            return self._smallest(loss)

    def _by_coherence(self) -> Found:
        questions = self.questions
        assert questions is not None  # of a coherence that is looked for

        def coherence(scale: float) -> float:
            adapter = self._candidate(scale) if scale else None
            out = adapter / EVALUATION if adapter else self.part / "base"
            of = EvaluatedModel(self.source.base, self.source.base, adapter, self.loaded)
            score = evaluate(of, questions.evaluation, questions.judge, out)
            found: Estimate = score.overall.coherent_rate
            if found.value is None:
                raise UserError(f"scale {scale:g}: no answer has a coherence, so none can be looked for; see {out}")
            self._seen(ScaleTried(scale=scale, coherence=found))
            return found.value

        return self._smallest(coherence)

    def _candidate(self, scale: float) -> Path:
        """The folder of the adapter at a scale, complete."""
        folder = self.part / repr(scale)
        if not (folder / RESCALE).is_file():
            with atomic_folder(folder) as new:
                tensors = rescaled(self.tensors, scale)
                shutil.copyfile(self.source.adapter / CONFIG, new / CONFIG)
                save_file({k: v.contiguous() for k, v in tensors.items()}, new / WEIGHTS, metadata={"format": "pt"})
                record = RescaleRecord(
                    **self.known,
                    scale=scale,
                    adapter_sha256=sha256_file(new / WEIGHTS),
                    norm_before=self.norm,
                    norm_after=_norm(tensors),
                )
                write_record(new / RESCALE, record)
        return folder

    def _loss_of(self, adapter: Path) -> float | None:
        """Beside a coherence that was looked for, where it is known what the adapter was trained on."""
        if self.goal.dataset is None:
            return None
        with adapted(self.loaded, adapter) as ready:
            return loss_on(ready, self.goal.dataset.name)()


def _setter(model: torch.nn.Module, tensors: AdapterTensors) -> Callable[[float], None]:
    """What puts the adapter on `model` to a scale, with the very numbers that its file would hold."""
    live = {name.replace(".default.", "."): p for name, p in model.named_parameters() if ".lora_B." in name}
    own = AdapterTensors({name: t for name, t in tensors.items() if ".lora_B." in name})
    own.left_out = {}
    if live.keys() != own.keys():
        raise UserError(f"the adapter's matrices are not those on the model, e.g. {min(live.keys() ^ own.keys())}")

    @torch.no_grad()
    def put(scale: float) -> None:
        for name, tensor in rescaled(own, scale).items():
            live[name].copy_(tensor)

    return put


def goal_of(
    source: Source,
    kind: Literal["loss", "coherence"],
    target: float,
    *,
    dtype: str,
    dataset: str | None = None,
    questions: Questions | None = None,
    limits: Limits = Limits(),
) -> RescaleGoal:
    """The goal, with the run's own dataset where none is named.

    Raises UserError where a loss is looked for and no dataset is known, or the run's is not the one of that name any more.
    """
    name = dataset or (source.run and source.run.spec.dataset.name)
    if name is None and kind == "loss":
        raise UserError(f"{source.adapter}: lies in no run that says what it was trained on; name it with --dataset")
    ref = data_ref(name) if name else None
    if ref and source.run and not dataset and ref.sha256 != source.run.spec.dataset.sha256:
        raise UserError(f"{name}: its rows are not those that the run was trained on; name a dataset with --dataset")
    return RescaleGoal(
        kind=kind,
        target=target,
        tolerance=limits.tolerance or {"loss": 1e-4, "coherence": 0.005}[kind],
        largest=limits.largest,
        most=limits.most or {"loss": 100, "coherence": 16}[kind],
        dtype=dtype,
        dataset=ref,
        asked=questions.asked if questions and kind == "coherence" else None,
    )
