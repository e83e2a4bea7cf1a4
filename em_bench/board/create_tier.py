"""Open a tier of a benchmark version: pin what entries depend on, and measure the targets by really running the baseline.

    python -m em_bench.board.create_tier v1 organism --submission leaderboard/submissions/adamw --work em_bench_work/open

With --frontier the baseline is asked at all its checkpoints instead, and its path of loss and misaligned rate is written:
what the board draws for comparison. The rules stay as they are.
"""

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from em_bench import assets, organism
from em_bench.board.benchmark import Target, Tier, load_benchmark
from em_bench.board.make_entry import preset_of
from em_bench.board.submission import read_submission
from em_bench.data import data_ref
from em_bench.data.models import base_path, base_ref
from em_bench.data.questions import load, questions_sha256
from em_bench.errors import UserError
from em_bench.files import digest, write_record, write_text
from em_bench.judging.prompts import load_prompts
from em_bench.records import Results
from em_bench.sweep.engine.run_preset import reproduce
from em_bench.sweep.plan import make_plan


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


def targets(tier: Tier, results: Results) -> tuple[Target, ...]:
    """One a cell: the baseline's mean final narrow loss over seeds, and the margin above it. Raises UserError for a gap."""
    out = []
    for model, dataset in tier.cells:
        cells = [c for c in results.cells if (c.model, c.dataset) == (model, dataset)]
        losses = [c.narrow_loss for c in cells if c.narrow_loss is not None]
        if len(losses) != len(tier.seeds):
            raise UserError(f"{model}/{dataset}: {len(losses)} results for {len(tier.seeds)} seeds; run the baseline to its end")
        loss = fmean(losses)
        out.append(
            Target(
                model=model,
                dataset=dataset,
                baseline_loss=loss,
                narrow_loss=loss + tier.margin,
                untrained_loss=cells[0].trajectory[0].narrow_loss,
            )
        )
    return tuple(out)


def frontier(results: Results) -> list[dict]:
    """Means over the runs at each checkpoint: step, narrow loss, misaligned rate; steps at which a run said nothing are left out."""
    by_step = defaultdict(list)
    for c in [*results.checkpoints, *results.cells]:
        by_step[c.steps if c.step is None else c.step].append(c)
    out = []
    for step, cells in sorted(by_step.items()):
        rates = [r for c in cells if (r := c.score.overall.misaligned_rate.value) is not None]
        losses = [c.narrow_loss for c in cells if c.narrow_loss is not None]
        if len(rates) == len(cells):
            out.append({"step": step, "loss": fmean(losses), "rate": fmean(rates), "runs": len(cells)})
    return out


def main(
    version: str,
    tier: str,
    submission: Annotated[Path, typer.Option(help="The baseline's folder.")],
    work: Annotated[Path, typer.Option(help="Work folder of the sweep.")],
    cores: int = 1,
    measure_frontier: Annotated[bool, typer.Option("--frontier", help="Measure the baseline's path instead.")] = False,
) -> None:
    """Run the baseline at every cell and seed, and write the pins and the targets into the version's file."""
    benchmark = load_benchmark(version)
    name = next(n for n in benchmark.tiers if n == tier)
    if measure_frontier:
        preset = preset_of(read_submission(submission), submission, benchmark.tiers[name], targets=False)
        preset = preset.model_copy(update={"evaluation": preset.evaluation.model_copy(update={"checkpoints": True})})
        points = frontier(reproduce(make_plan(preset), work, cores=cores).results)
        path = assets.path("leaderboard", "benchmark", "frontier", f"{version}-{tier}.json")
        write_text(path, json.dumps({"schema_version": "em_bench.frontier/1", "points": points}, indent=1) + "\n")
        return
    rules = pinned(benchmark.tiers[name])
    ended = reproduce(make_plan(preset_of(read_submission(submission), submission, rules, targets=False)), work, cores=cores)
    rules = Tier.model_validate(rules.model_dump() | {"targets": targets(rules, ended.results)})
    path = assets.path("leaderboard", "benchmark", f"{version}.json")
    write_record(path, benchmark.model_copy(update={"tiers": benchmark.tiers | {name: rules}}))


if __name__ == "__main__":
    typer.run(main)
