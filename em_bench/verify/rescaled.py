"""Checks of rescaled adapters: the bytes, the multiplication done again, the norms."""

import math
from collections.abc import Iterable
from pathlib import Path

from em_bench.files import read_record, sha256_file
from em_bench.records import RescaleRecord, ResponsesHeader
from em_bench.run_folder import RESCALE, WEIGHTS
from em_bench.verify.checks import Check, check, same_file


def rescaled_below(top: Path) -> dict[Path, RescaleRecord]:
    """Every rescaled adapter at or below `top` by its folder. Raises UserError where a record cannot be read."""
    return {p.parent: read_record(p, RescaleRecord) for p in sorted(Path(top).rglob(RESCALE))}


def adapters_below(top: Path) -> dict[str, Path]:
    """Every other adapter at or below `top`: the hash of its weights, and its folder. Empty where nothing is rescaled."""
    if not any(Path(top).rglob(RESCALE)):
        return {}
    return {sha256_file(p): p.parent for p in sorted(Path(top).rglob(WEIGHTS)) if not p.with_name(RESCALE).exists()}


def verify_rescaled(folder: Path, record: RescaleRecord, source: Path | None) -> list[Check]:
    """`source` is the folder of the adapter that was rescaled, None where it is not there."""
    if record.scale is None:
        return [
            check(
                "rescale.adapter",
                "no scale met the target, and there is no adapter",
                lambda: f"{WEIGHTS} is there" if (folder / WEIGHTS).exists() else None,
            )
        ]
    found = [
        check(
            "rescale.adapter",
            "the adapter's bytes are those that its record names",
            lambda: same_file(folder / WEIGHTS, record.adapter_sha256 or ""),
        ),
        check("rescale.norm", "the norm of its update, recomputed, is the one in its record", lambda: _norm(folder, record)),
    ]
    if source:
        sentence = "every tensor is the other adapter's, its B times the scale"
        found.append(check("rescale.scale", sentence, lambda: _scaled(folder, record, source)))
    return found


def named(header: ResponsesHeader, records: Iterable[RescaleRecord]) -> Check:
    """Of an evaluation whose header says that its adapter is a rescaled one."""
    said = (header.adapter_sha256, header.run_id, header.step, header.scale)
    return check(
        "responses.adapter",
        "the responses name a rescaled adapter by what its record says",
        lambda: (
            None
            if any(said == (r.adapter_sha256, r.run_id, r.step, r.scale) for r in records)
            else f"none of the rescaled adapters is that of {header.run_id} times {header.scale:g} with this hash"
        ),
    )


def _norm(folder: Path, record: RescaleRecord) -> str | None:
    from em_bench.adapter_file import load_adapter
    from em_bench.spectral import layer_spectra, lora_pairs, norm_of

    norm = norm_of(layer_spectra(lora_pairs(load_adapter(folder))))
    if norm is None or record.norm_after is None:
        return None if norm == record.norm_after else "one of the two is not known"
    if not math.isclose(norm, record.norm_after, rel_tol=1e-6):
        return f"it is {norm:.6g}, the record says {record.norm_after:.6g}"
    return None


def _scaled(folder: Path, record: RescaleRecord, source: Path) -> str | None:
    from em_bench.adapter_file import load_adapter, read_config, rescaled

    if read_config(folder) != read_config(source):
        return "its configuration is another"
    assert record.scale is not None  # or there is no adapter
    expected, found = rescaled(load_adapter(source), record.scale), load_adapter(folder)
    if expected.keys() != found.keys():
        return "it holds other tensors"
    wrong = next((n for n in expected if expected[n].dtype != found[n].dtype or not expected[n].equal(found[n])), None)
    return wrong and f"{wrong} is not the other adapter's times {record.scale:g}"
