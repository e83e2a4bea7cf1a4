"""Whether an adapter belongs to a base: what it and its run say of themselves, against what the base is.

Another base of the same shapes takes the adapter without a word, and answers like a model that was hardly trained: aligned.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

from em_bench.adapter_file import CONFIG, WEIGHTS, read_config
from em_bench.data.models import HUB_ID, PINNED, base_ref, hub_id, load_models
from em_bench.errors import UserError
from em_bench.files import cache_dir, read_record, sha256_file, sha256_tree
from em_bench.records import BaseRef, RescaleRecord, RunRecord
from em_bench.run_folder import RESCALE, RunFolder

CACHED = {"organism": "organism", "package": "packages"}  # source -> folder of the cache
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_form(adapter: Path) -> None:
    """Raises UserError for what is no PEFT adapter folder."""
    if not (adapter / CONFIG).is_file() or not (adapter / WEIGHTS).is_file():
        raise UserError(f"{adapter}: no PEFT adapter (adapter_config.json and adapter_model.safetensors); name its folder")


class Belonging(NamedTuple):
    """What a record says of an adapter on a base. scale: it is the run's times this. forced: the contradiction that --force overrode."""

    base: BaseRef
    run_id: str | None = None
    step: int | None = None
    scale: float | None = None
    forced: str | None = None

    def of_subject(self, adapter: Path | None) -> dict:
        """What a file's header says of it."""
        return self._asdict() | {
            "adapter_sha256": sha256_file(adapter / WEIGHTS) if adapter else None,
            "adapter_config_sha256": sha256_file(adapter / CONFIG) if adapter else None,
        }


class _Claim(NamedTuple):
    """What an adapter says its base is; source is None where it was not trained here."""

    name: str
    revision: str | None
    source: str | None = None

    def __str__(self) -> str:
        return self.name + (f" ({self.revision[:12]})" if self.revision else "")


def belonging(adapter: Path | None, base: str, folder: Path, force: bool = False) -> Belonging:
    """Who `adapter` is and whether it belongs to `base` (as the user named it), which lies in `folder`.

    Raises UserError where it was certainly trained on another base, unless `force`: its digest, commit or weights are others,
    or its name is that of another model of the hub or the roster. What cannot be known, such as a folder on another machine,
    is said on stderr.
    """
    here = base_ref(base, folder)
    if adapter is None:
        return Belonging(here)
    run, step = run_of(adapter) or (None, None)
    rescaled = rescale_of(adapter)
    stated = run.spec.base if run else rescaled.base if rescaled else None
    claim = _claim(adapter, stated)
    problem, same = _compare(claim, here, hub_id(base, folder), folder)
    if problem and not force:
        raise UserError(
            f"{adapter}: {problem}; name that base, or measure it on this one all the same: --force (Inspect: -M force=true)"
        )
    if problem:
        print(f"{adapter}: forced: {problem}", file=sys.stderr)
    elif same is None:
        said = f"its base was {claim.name}" if claim.name else "it does not say what its base was"
        print(f"{adapter}: {said}; whether that is {base} cannot be known, and is taken for granted", file=sys.stderr)
    proven = stated if stated and same else here
    if rescaled:
        return Belonging(proven, rescaled.run_id, rescaled.step, rescaled.scale, problem)
    return Belonging(proven, run.run_id if run else None, step, forced=problem)


def run_of(adapter: Path) -> tuple[RunRecord, int | None] | None:
    """The record of the run folder that an adapter lies in, and its step (None at the end); None where it lies in none.

    Raises UserError for an adapter whose bytes are not those that the record names.
    """
    found = RunFolder.of_adapter(adapter)
    if not found:
        return None
    folder, step = found
    run = folder.record()
    expected = run.adapter_sha256 if step is None else run.checkpoints.get(step)
    if sha256_file(folder.weights(step)) != expected:
        raise UserError(f"{adapter}: is not the adapter that {folder.record_file} names; to measure it, copy it elsewhere")
    return run, step


def rescale_of(adapter: Path) -> RescaleRecord | None:
    """The record of a rescaled adapter; None for any other. Raises UserError for one whose bytes are not those that it names."""
    if not (path := adapter / RESCALE).is_file():
        return None
    record = read_record(path, RescaleRecord)
    if record.scale is None:
        raise UserError(f"{adapter}: holds no adapter, because no scale met the target; see {path}")
    if sha256_file(adapter / WEIGHTS) != record.adapter_sha256:
        raise UserError(f"{adapter}: is not the adapter that {path} names; to measure it, copy it elsewhere")
    return record


def other_revision(claimed: BaseRef, found: BaseRef) -> str | None:
    """How two records of a base contradict each other; None where they agree, or where they cannot be compared."""
    if claimed.revision == found.revision:
        return None
    if claimed.source == found.source or claimed.source in PINNED or found.source in PINNED:
        return f"was trained on {_named(claimed)}, and this base is {_named(found)}"
    return None


def _named(ref: BaseRef) -> str:
    return f"{ref.name} ({ref.revision[:12]})"


def _claim(adapter: Path, base: BaseRef | None) -> _Claim:
    if base:
        return _Claim(hub_id(base.name, Path()) or base.name if base.source == "hub" else base.name, base.revision, base.source)
    config = read_config(adapter)
    name, revision = (str(config.get(k) or "") for k in ("base_model_name_or_path", "revision"))
    if (known := load_models().get(name)) and known.source in PINNED:
        return _Claim(name, revision if _DIGEST.fullmatch(revision) else None, known.source)
    return _Claim(name, revision if _COMMIT.fullmatch(revision) or _DIGEST.fullmatch(revision) else None)


def _compare(claim: _Claim, here: BaseRef, hub: str | None, folder: Path) -> tuple[str | None, bool | None]:
    """(the contradiction, whether it is certainly the same base); (None, None) where nothing is certain."""
    other = f"was trained on {claim}, and this base is {_named(here)}", False
    weights = _same_weights(claim, folder)
    if claim.revision == here.revision or weights or (here.source in PINNED and _last(claim.name) == folder.name):
        return None, True
    if not claim.name:
        return None, None
    if here.source in PINNED or claim.source in PINNED:
        return other if claim.revision or claim.name != here.name else (None, None)
    commit = here.revision if here.source == "hub" else _snapshot(folder)
    if commit and claim.revision == commit:
        return None, True
    comparable = (commit and _COMMIT.fullmatch(claim.revision or "")) or (
        here.source == "path" and _DIGEST.fullmatch(claim.revision or "")
    )
    if weights is False or comparable:
        return other
    if hub and HUB_ID.fullmatch(claim.name):
        return (None, True) if claim.name.casefold() == hub.casefold() else other
    names = {_last(n) for n in (here.name, folder.name, hub or here.name)}
    if _last(claim.name) in names:
        return None, None
    models = load_models()
    known = {_last(n) for n in (*models, *(m.hub_id for m in models.values() if m.hub_id))}
    return other if _last(claim.name) in known and names & known else (None, None)


def _last(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].casefold()


def _snapshot(folder: Path) -> str | None:
    """The commit of a folder of the hub's cache."""
    return folder.name if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name) else None


def _same_weights(claim: _Claim, folder: Path) -> bool | None:
    """Whether `folder` holds the weights of the base that the adapter names; None where that does not lie on this machine."""
    if claim.source in PINNED:
        built = cache_dir().glob(f"{CACHED[claim.source]}/*-{claim.revision[:12]}") if claim.revision else ()
        there = next(iter(built), None)
    elif claim.revision:
        return None  # the folder may hold something else by now
    else:
        there = Path(claim.name) if claim.name and Path(claim.name).is_dir() else None
    if there is None or not any(there.glob("*.safetensors")):
        return None
    return there.resolve() == folder.resolve() or sha256_tree(there, "*.safetensors") == sha256_tree(folder, "*.safetensors")
