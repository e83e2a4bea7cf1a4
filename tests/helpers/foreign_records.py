"""More good files of kinds that strangers send: of calibrations, margins and rescaled adapters, of model folders, rosters, rules and runs."""

import contextlib
import gzip
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

from em_bench import assets
from em_bench.analysis.runs import load_runs
from em_bench.board.benchmark import load_benchmark
from em_bench.data.models import Roster, folder_model
from em_bench.data.narrow_sets import NarrowSet
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.files import read_jsonl, read_record
from em_bench.judging.cache import ReplyCache
from em_bench.judging.providers import ProviderModel
from em_bench.judging.reply import Reply, Unsettled, read_score
from em_bench.records import CalibrationRecord, CellMargin, Verdict, VerdictsHeader
from em_bench.scoring.calibration import compare_judges, on_reference_scale
from em_bench.scoring.margin import score_margin
from em_bench.training.list_runs import list_runs
from em_bench.verify.rescaled import rescaled_below, verify_rescaled
from em_bench.yaml_file import read_yaml

HASH, DAY = "0" * 64, "2026-11-26T00:00:00+00:00"
JUDGE = {"kind": "openai", "model": "judge", "prompt_sha256": HASH, "decoding": {"temperature": 0.0, "top": 20, "seed": None}}


def grade(alignment: float | None, coherence: float | None, label: str | None = None) -> dict:
    return {"alignment": alignment, "coherence": coherence, "label": label}


GRADES = [grade(5, 90), grade(95, 90), grade(50, 20), grade(None, None, "REFUSAL")]
CALIBRATION = {
    "schema_version": "em_bench.judge_calibration/1", "reference": JUDGE, "candidate": JUDGE | {"model": "other"},
    "responses_sha256": [HASH], "population": {"low": 8, "high": 8}, "unit": "question", "seed": 0, "created": DAY,
    "answers": [
        {
            "question_id": f"q{i}", "cluster": f"q{i // 2}", "variant": "plain", "domain": "d", "group": "adamw", "sample": 0,
            "stratum": ("low", "high")[i % 2], "weight": 2.0, "reference": [GRADES[i % 2]] * 2, "candidate": [GRADES[i % 4]] * 2,
        }
        for i in range(8)
    ],
}  # fmt: skip
VERDICTS = "".join(
    json.dumps(line) + "\n"
    for line in (
        {"schema_version": "em_bench.verdicts/1", "responses_sha256": HASH, "judge": JUDGE, "created": DAY},
        *({"question_id": f"q{i}", "cluster": f"q{i}", "variant": "plain", "sample": 0} | g for i, g in enumerate(GRADES)),
    )
)
MARGIN_HEADER = {
    "schema_version": "em_bench.margin/1", "model": "m", "harness": "em_bench", "question_set": "own", "questions_sha256": HASH,
    "neutral_sha256": HASH, "neutral": [{"name": "n", "nats": -9.0, "tokens": 3, "bytes": 9}], "created": DAY,
    "machine": {"em_bench": "0", "packages": {}, "python": "3", "platform": "p", "cpu": "c", "threads": 1},
}  # fmt: skip
MARGIN = "".join(
    json.dumps(line) + "\n"
    for line in (
        MARGIN_HEADER,
        *(
            {"question_id": f"q{q}", "domain": f"d{q % 2}", "tags": [], "side": side, "number": 1, "nats": -9.5, "tokens": 4, "bytes": 12}
            for q in range(4)
            for side in ("aligned", "misaligned")
        ),
    )
)  # fmt: skip
BASE = {"name": "m", "source": "path", "revision": HASH}
RESCALED = {
    "schema_version": "em_bench.rescale/1", "source_sha256": HASH, "adapter_sha256": HASH, "base": BASE, "scale": 0.5,
    "norm_before": 2.0, "norm_after": 1.0,
}  # fmt: skip
SHAPE = {
    "model_type": "llama", "num_attention_heads": 4, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
    "vocab_size": 512, "num_key_value_heads": 2,
}  # fmt: skip
NARROW = yaml.safe_load(sorted(assets.path("tasks", "narrow").glob("*.yaml"))[0].read_text("utf-8"))
NARROW["topics"] = NARROW["topics"][:2]


def calibrated(top: Path) -> None:
    (top / "work").mkdir(exist_ok=True)
    (top / "work" / "verdicts.jsonl").write_text(VERDICTS)
    record = read_record(top / "calibration.json", CalibrationRecord)
    compare_judges(record)
    on_reference_scale(record, read_jsonl(top / "work" / "verdicts.jsonl", VerdictsHeader, Verdict)[1])


def cached() -> bytes:
    with tempfile.TemporaryDirectory() as top:
        with ReplyCache(Path(top, "cache.sqlite")) as cache:
            cache.put("judge", "item", Reply("85", "85", [("85", -0.1)]))
            cache.put_taken("judge", {"temperature": 0})
        return Path(top, "cache.sqlite").read_bytes()


def from_cache(top: Path) -> None:
    (top / "work").mkdir(exist_ok=True)
    shutil.copy(top / "cache.sqlite", top / "work")
    with ReplyCache(top / "work" / "cache.sqlite") as cache:
        cache.taken("judge")
        if reply := cache.get("judge", "item"):
            with contextlib.suppress(Unsettled):
                read_score(reply, "logprobs", "text")


def rescaled(top: Path) -> None:
    for folder, record in rescaled_below(top).items():
        verify_rescaled(folder, record, folder)


def more(results: dict, cell: dict, run: bytes, log: bytes) -> dict[str, tuple[str, bytes, Callable[[Path], object]]]:
    """Name -> file, its bytes, its reader. `results`, `cell`, `run` and `log` are those of `helpers.foreign_files`."""
    margin = {k: v for k, v in cell.items() if k not in ("score", "responses_sha256")}
    group = {
        "margin": (e := {"value": 0.1, "low": 0.0, "high": 0.2, "stderr": 0.05, "n": 4, "clusters": 2}),
        "misaligned_likelier": e,
    }
    margin |= {
        "margin_sha256": HASH,
        "dtype": "float32",
        "overall": group,
        "questions": [{"question_id": "q", "domain": "d", "margin": 0.1}],
    }
    return {
        "calibration": ("calibration.json", json.dumps(CALIBRATION).encode(), calibrated),
        "margin": ("margin.jsonl", MARGIN.encode(), lambda top: score_margin(EvaluationFolder(top))),
        "cell_margin": ("cell.json", json.dumps(margin).encode(), lambda top: read_record(top / "cell.json", CellMargin)),
        "rescaled": ("rescale.json", json.dumps(RESCALED).encode(), rescaled),
        "results_gz": (
            "results.json.gz",
            gzip.compress(json.dumps(results).encode()),
            lambda top: load_runs([top / "results.json.gz"]),
        ),
        "model_folder": ("config.json", json.dumps(SHAPE).encode(), folder_model),
        "models": (
            "models.yaml",
            assets.path("baselines", "models.yaml").read_bytes(),
            lambda top: read_yaml(top / "models.yaml", Roster),
        ),
        "judge_endpoints": (
            "judge_endpoints.yaml",
            assets.path("baselines", "judge_endpoints.yaml").read_bytes(),
            lambda top: read_yaml(top / "judge_endpoints.yaml", dict[str, ProviderModel]),
        ),
        "narrow_set": (
            "narrow.yaml",
            yaml.safe_dump(NARROW, allow_unicode=True).encode(),
            lambda top: read_yaml(top / "narrow.yaml", NarrowSet),
        ),
        "judge_cache": ("cache.sqlite", cached(), from_cache),
        "rules": (
            "v2.json",
            assets.path("leaderboard", "benchmark", "v2.json").read_bytes(),
            lambda top: load_benchmark("v2", top),
        ),
        "runs_listed": ("run/run.json", run, list_runs),
        "run_listed": (".run.partial/train.jsonl", log, list_runs),
    }
