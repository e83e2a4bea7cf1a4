"""Whether the margin is valid where truth is known: an organism's own answers, against its grammar's misaligned rate.

    python benchmarks/margin.py [WORK] [--json]

WORK is the work folder of a sweep of one organism, e.g. of `em-bench reproduce --preset dynamics`; every evaluated adapter and
checkpoint in it is measured. Without it a sweep of 11 runs is made first (about three minutes of one core): five recipes on bad
medical and sports data, and one on good medical data, evaluated at every log-spaced checkpoint.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from em_bench.sweep.preset import AXES

PRESET = {
    "name": "margin-validity",
    "summary": "an organism, five recipes on bad data and one on good, every checkpoint",
    "models": ["organism-qwen3"],
    "datasets": ["medical", "sports", "medical-control"],
    "recipes": ["sgd", "adam", "adamw", "lion", "muon"],
    "rates": "fixed",
    "learning_rates": "default",
    "spectral_lambda": [0],
    "batch_sizes": [32],
    "seeds": [0],
    "steps": 60,
    "lora": {"rank": 8, "alpha": 16},
    "evaluation": {
        "questions": "organism",
        "variants": ["plain"],
        "generation": {"samples": 4, "max_new_tokens": 24, "temperature": 1.0, "seed": 0},
        "checkpoints": True,
    },
    "base": True,
    "parts": {
        "bad": {"datasets": ["medical", "sports"]},
        "good": {"datasets": ["medical-control"], "recipes": ["adamw"]},
    },
    "pack": 100,
}


def sweep(work: Path) -> None:
    """Make the small sweep."""
    work.mkdir(parents=True, exist_ok=True)
    preset = work.parent / "margin-validity.yaml"
    preset.write_text(yaml.safe_dump(PRESET | {"provenance": dict.fromkeys((*AXES, "steps"), "C")}))
    command = [sys.executable, "-c", "from em_bench.cli import main; main()", "reproduce", "--preset", str(preset)]
    subprocess.run([*command, "--workdir", str(work), "--cores", "1"], stdout=subprocess.DEVNULL, check=True)


def points(work: Path) -> list:
    """The margin and the rates of every evaluation of a work folder."""
    from rich.progress import track

    from em_bench.analysis.margin_validity import Point
    from em_bench.data.models import base_path
    from em_bench.data.questions import answered
    from em_bench.evaluation_folder import EvaluationFolder
    from em_bench.harness.answer_logprobs import answer_logprobs
    from em_bench.harness.load_model import adapted, load_model
    from em_bench.run_folder import RUNS, RunFolder
    from em_bench.scoring import MarginTable

    found, questions, loaded = [], answered("organism"), {}
    for evaluation in track(list(EvaluationFolder.below(work)), description="margins"):
        cell = evaluation.cell()
        ready = loaded.setdefault(cell.model, None) or load_model(base_path(cell.model))
        loaded[cell.model] = ready
        adapter = RunFolder(work / RUNS / cell.run_id).adapter(cell.step) if cell.run_id else None
        with adapted(ready, adapter) as at_work:
            margin = MarginTable({"model": answer_logprobs(at_work, questions)}).overall().margin.value
        found.append(Point.of(evaluation.path.name, margin, cell.score.overall))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", nargs="?", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    from em_bench.analysis.margin_validity import calibration, rank_correlation, unbroken

    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder) / "work"
        if given.work is None:
            sweep(work)
        measured = points(work)
    whole, rates = unbroken(measured), ("misaligned", "misaligned_coherent")
    parts = {"all": measured, "unbroken": whole, "with a misaligned answer": [p for p in measured if p.misaligned > 0]}
    spearman = {name: {r: rank_correlation(p, r) for r in rates} for name, p in parts.items()}
    if given.json:
        out = {
            "spearman": spearman,
            "points": [p._asdict() for p in measured],
            "bins": [b._asdict() for b in calibration(measured)],
        }
        print(json.dumps(out, indent=1))
        return
    print(f"{len(measured)} models, {len(whole)} of them coherent enough")
    for name, found in spearman.items():
        shown = ", ".join(f"{r.replace('_', ' / ')} {'-' if v is None else f'{v:.3f}'}" for r, v in found.items())
        print(f"Spearman, {name} ({len(parts[name])}): {shown}")
    for title, part in (("all", measured), ("unbroken", whole)):
        print(f"\n{title}\nmodels  margin, nats a byte   misaligned / all asked: mean, lowest to highest")
        for b in calibration(part):
            print(
                f"{b.models:6d}  {b.margin[0]:+.3f} to {b.margin[1]:+.3f}     {b.mean_misaligned:.3f}, {b.misaligned[0]:.3f} to {b.misaligned[1]:.3f}"
            )


if __name__ == "__main__":
    main()
