"""What a user names to be measured: a base, an adapter, or an adapter on a base that its own configuration names."""

from pathlib import Path
from typing import NamedTuple

from em_bench.adapter_file import read_config
from em_bench.data.hub import holds, snapshot, use_revision
from em_bench.data.models import HUB_ID, check_model, load_models
from em_bench.errors import UserError
from em_bench.run_folder import ADAPTER, CONFIG, RECORD


class Target(NamedTuple):
    """base: as `base_path` takes it. adapter: a PEFT folder on this disk."""

    base: str
    adapter: Path | None = None

    @property
    def organism(self) -> bool:
        """Whether the base is one of the embedded models, whose questions and judge are their own."""
        known = load_models().get(self.base)
        named = Path(self.base).name.split("-")[0] == "organism" and Path(self.base).is_dir()  # a built one's folder
        return named or (known is not None and known.source == "organism")


def resolve(name: str, adapter: str | None = None, revision: str | None = None) -> Target:
    """The base and adapter of `name`: a roster name; the folder of a model, an adapter or a run; or OWNER/NAME[@REVISION] of the hub, be it a
    model or an adapter. `adapter`: a PEFT or run folder, or OWNER/NAME[@REVISION], on the base `name`. `revision`: of `name`.

    An adapter's base is the one that its configuration names, at the commit that it names; that it fits is checked where it is loaded. What is
    of the hub is asked for its one file that tells, and an adapter is fetched. Raises UserError for what is nothing of these, and
    for an adapter whose base is not named, or lies on another machine.
    """
    if adapter is None:
        return _named(name, revision)
    if (own := _named(name, revision)).adapter:
        raise UserError(f"{name}: is an adapter; name its base before --adapter, or leave --adapter away")
    return Target(own.base, adapter_folder(adapter))


def adapter_folder(name: str) -> Path:
    """The PEFT folder of an adapter: itself, that of a run folder, or fetched by OWNER/NAME[@REVISION]. A path that is nothing stays itself."""
    at = Path(name).expanduser()
    if (at / RECORD).is_file() and not (at / CONFIG).is_file():
        return at / ADAPTER
    hub, _, revision = name.partition("@")
    if at.exists() or not HUB_ID.fullmatch(hub) or hub.startswith("."):
        return at
    return snapshot(hub, revision or None)


def _named(name: str, revision: str | None) -> Target:
    at = Path(name).expanduser()
    if at.is_dir():
        if revision:
            raise UserError(f"--revision {revision}: {name} is a folder, which has one state; leave it away")
        folder = adapter_folder(name)
        return _on_its_base(folder) if (folder / CONFIG).is_file() else Target(name)
    known = load_models().get(name)
    if known is not None and known.hub_id and revision:
        use_revision(known.hub_id, revision)
        return Target(known.hub_id)
    if known is not None:
        if revision:
            raise UserError(f"--revision {revision}: {name} is not of the hub, and has one state; leave it away")
        return Target(name)
    hub, _, stated = name.partition("@")
    check_model(hub)
    revision = revision or stated or None
    if holds(hub, CONFIG, revision):
        return _on_its_base(snapshot(hub, revision))
    if revision:
        use_revision(hub, revision)
    return Target(hub)


def _on_its_base(folder: Path) -> Target:
    config = read_config(folder)
    base, commit = (str(config.get(k) or "") for k in ("base_model_name_or_path", "revision"))
    how = f"name it: em-bench evaluate BASE --adapter {folder}"
    if not base:
        raise UserError(f"{folder / CONFIG}: does not say what the adapter's base is; {how}")
    if base in load_models() or Path(base).is_dir():
        return Target(base, folder)
    if not HUB_ID.fullmatch(base):
        raise UserError(f"{folder / CONFIG}: the adapter's base was {base}, which is not on this machine; {how}")
    if commit:
        use_revision(base, commit)
    return Target(base, folder)
