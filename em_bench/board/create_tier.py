"""Open a tier of a benchmark version: pin what entries depend on, with the losses and lengths of a preset.

    python -m em_bench.board.create_tier v2 organism --preset tiny

Nothing is trained, and no answer is asked: the held-out loss of each untouched base is the one number that is measured. When the
baseline's entry is made, `--baseline` pins its results:

    python -m em_bench.board.create_tier v2 organism --baseline

When its judge is switched off, name the judge that follows, by the record of `em-bench judge calibrate` that leads from one to the other:

    python -m em_bench.board.create_tier v2 small --successor calibration.json --prompts own
"""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from em_bench import assets, organism
from em_bench.board.benchmark import Target, Tier, load_benchmark
from em_bench.board.entry import MANIFEST, RESULTS
from em_bench.data import data_ref
from em_bench.data.models import base_path, base_ref
from em_bench.data.questions import load, questions_sha256
from em_bench.errors import UserError
from em_bench.files import digest, read_record, sha256_file, write_record
from em_bench.harness.evaluate import loss_on
from em_bench.harness.load_model import load_model
from em_bench.judging.prompts import load_prompts
from em_bench.records import CalibrationRecord
from em_bench.sweep.preset import Preset, RateRule, load_preset
from em_bench.training.spec import training_code


def pinned(tier: Tier) -> Tier:
    """The tier with what is there now of its models, datasets, questions and grammar."""
    questions = load(tier.questions.name, variants=tier.questions.variants)
    models = [m.model_copy(update={"revision": base_ref(m.name, base_path(m.name)).revision}) for m in tier.models]
    datasets = [
        d.model_copy(
            update={
                "sha256": data_ref(d.name).sha256,
                "rows": data_ref(d.name).rows,
                "entropy": organism.answer_entropy(d.name) if d.name in organism.DATASETS else None,
            }
        )
        for d in tier.datasets
    ]
    found = {"count": len(questions), "sha256": questions_sha256(questions)}
    asked = organism.grammar_sha256()
    if tier.judge.kind != "grammar":
        assert tier.judge.prompts is not None
        asked = digest(load_prompts(tier.judge.prompts).texts)
    return tier.model_copy(
        update={
            "models": tuple(models),
            "datasets": tuple(datasets),
            "questions": tier.questions.model_copy(update=found),
            "judge": tier.judge.model_copy(update={"prompt_sha256": asked}),
            "targets": (),
        }
    )


def opened(tier: Tier, preset: Preset) -> Tier:
    """The pinned tier with the preset's length, adapter, rule for rates and losses. Raises UserError where the preset lacks one."""
    if not isinstance(preset.learning_rates, RateRule):
        raise UserError(f"--preset {preset.name}: learning_rates is no rule for rates; name a preset with one")
    targets = []
    for model, dataset in tier.cells:
        losses = preset.evaluation.targets_of(model, dataset)
        if len(losses) != 2:
            raise UserError(f"--preset {preset.name}: has not two targets for {model}/{dataset}")
        untrained = loss_on(load_model(base_path(model), dtype=tier.dtype), dataset)()
        targets.append({"model": model, "dataset": dataset, "losses": losses, "untrained_loss": untrained})
    changed = {
        "steps": preset.steps,
        "epochs": preset.epochs,
        "lora": tier.lora.model_copy(update={"rank": preset.lora.rank, "alpha": preset.lora.alpha}),
        "rates": preset.learning_rates.model_copy(update={"most": tier.rates.most}),
        "targets": tuple(Target.model_validate(t) for t in targets),
    }
    return Tier.model_validate(tier.model_copy(update=changed).model_dump())


def succeeded(tier: Tier, record: CalibrationRecord, prompts: str) -> Tier:
    """The tier with the record's candidate as its judge's successor. Raises UserError for a record of other judges, or of other prompts."""
    found = record.candidate
    asked = None if found.kind == "grammar" else prompts
    if asked and digest(load_prompts(asked).texts) != found.prompt_sha256:
        raise UserError(f"--prompts {asked}: the candidate judged by others; name its prompts")
    rule = {
        "kind": found.kind,
        "model": found.model,
        "prompts": asked,
        "prompt_sha256": found.prompt_sha256,
        "decoding": {k: v for k, v in found.decoding.items() if v is not None and k != "run"},
    }
    try:
        return Tier.model_validate(tier.model_dump() | {"successor": {"judge": rule, "calibration": record.model_dump()}})
    except ValidationError as e:
        raise UserError(f"--successor: {'; '.join(str(x['msg']) for x in e.errors())}") from None


def main(
    version: str,
    tier: str,
    preset: Annotated[str, typer.Option(help="The preset whose losses, length and rule for rates are taken.")] = "tiny",
    baseline: Annotated[bool, typer.Option("--baseline", help="Pin the baseline's results instead.")] = False,
    successor: Annotated[Path | None, typer.Option(help="Name the judge's successor instead: a record of both judges.")] = None,
    prompts: Annotated[str, typer.Option(help="With --successor: the prompts that it judged by.")] = "own",
) -> None:
    """Write the pins into the version's file."""
    benchmark = load_benchmark(version)
    name = next(n for n in benchmark.tiers if n == tier)
    if baseline:
        pin = benchmark.baselines[name]
        manifest = assets.path("leaderboard", "submissions", pin.entry) / RESULTS / MANIFEST
        pins = benchmark.baselines | {name: pin.model_copy(update={"manifest_sha256": sha256_file(manifest)})}
        changed: dict[str, object] = {"baselines": pins}
    elif successor:
        with_it = succeeded(benchmark.tiers[name], read_record(successor, CalibrationRecord), prompts)
        changed = {"tiers": benchmark.tiers | {name: with_it}}
    else:
        tiers = benchmark.tiers | {name: opened(pinned(benchmark.tiers[name]), load_preset(preset))}
        changed = {"tiers": tiers, "training_code": (training_code(),)}
    write_record(assets.path("leaderboard", "benchmark", f"{version}.json"), benchmark.model_copy(update=changed))


if __name__ == "__main__":
    typer.run(main)
