"""An entry's runs and evaluations as folders of JSON lines, to be spoilt, and packed again as a forger would: nothing is checked."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from em_bench.board.packed import OF_RESPONSE, RECORD_COLUMNS, RECORDS, RESPONSES, STEPS, Packed, response_columns, step_columns
from em_bench.board.parquet_table import flat, write_table
from em_bench.files import sha256_file, write_record
from em_bench.records import Response, StepRecord, Verdict
from em_bench.run_folder import RunFolder
from em_bench.scoring import score_file

NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def tree_of(folder: Path) -> Path:
    """Where the folders of an entry lie, beside the leaderboard's own."""
    return folder.parent.parent / "trees" / folder.name


def rows_of(path: Path) -> tuple[str, list[dict]]:
    head, *rows = path.read_text().split("\n")
    return head, [json.loads(r) for r in rows if r]


def pack_raw(folder: Path) -> None:
    """Pack the tree of an entry into its results."""
    top, out = tree_of(folder), folder / "results"
    records, steps, responses = [], [], []
    for at in sorted((top / "runs").iterdir()):
        records.append({"kind": "run", "name": at.name, "record": at.joinpath("run.json").read_text().strip().replace("\n", " ")})
        head, rows = rows_of(at / "train.jsonl")
        steps += [{"run_id": at.name} | flat(StepRecord, r) for r in (json.loads(head), *rows)]
    most = 1
    for at in sorted((top / "evaluations").iterdir()):
        head, rows = rows_of(at / "responses.jsonl")
        records.append({"kind": "responses", "name": at.name, "record": head})
        rows = [{"evaluation": at.name} | flat(Response, r) for r in rows]
        files = ["verdicts.jsonl", *sorted(p.name for p in at.glob("verdicts-*"))]
        for number, name in enumerate(files, 1):
            most = max(most, number)
            head, verdicts = rows_of(at / name)
            records.append({"kind": name.removesuffix(".jsonl"), "name": at.name, "record": head})
            for row, said in zip(rows, verdicts, strict=False):
                row |= {k if number == 1 else f"{k}_{number}": v for k, v in flat(Verdict, said).items() if k not in OF_RESPONSE}
        records.append(
            {"kind": "score", "name": at.name, "record": at.joinpath("score.json").read_text().strip().replace("\n", " ")}
        )
        responses += rows
    out.mkdir(exist_ok=True)
    write_table(out / RECORDS, RECORD_COLUMNS, records)
    write_table(out / STEPS, step_columns(), steps)
    write_table(out / RESPONSES, response_columns(most), responses)


def unpacked(folder: Path) -> Path:
    """The tree of an entry that has none yet."""
    Packed(folder / "results").unpack(tree_of(folder))
    return tree_of(folder)


def relink(evaluation: Path) -> None:
    """Bring the hashes of one evaluation in line with its files, and its score with its verdicts."""
    said, *rows = (evaluation / "verdicts.jsonl").read_text().splitlines()
    header = json.loads(said) | {"responses_sha256": sha256_file(evaluation / "responses.jsonl")}
    (evaluation / "verdicts.jsonl").write_text("\n".join([json.dumps(header), *rows]) + "\n")
    kept = {k: v for k, v in json.loads((evaluation / "score.json").read_text()).items() if k in ("narrow_loss", "capability")}
    write_record(evaluation / "score.json", score_file(evaluation / "verdicts.jsonl", **kept))


def give_adapters(top: Path, steps=(None, 6)) -> None:
    """An adapter of two small matrices at these steps of every run."""
    for i, at in enumerate(sorted((top / "runs").iterdir())):
        for step in steps:
            folder = RunFolder(at).adapter(step)
            folder.mkdir(parents=True)
            (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
            tensors = {NAME.format("A"): torch.eye(2, 3) + i, NAME.format("B"): torch.eye(4, 2) * (step or 9)}
            save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
