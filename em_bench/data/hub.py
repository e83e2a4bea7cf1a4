"""Models of the hub: asked once, by one process of a machine, for a commit that stays; from then on read from the disk alone.

A model without a revision in the roster is pinned where it is first used:
CACHE/hub/OWNER--NAME/pin        the commit that its name stands for on this machine
CACHE/hub/OWNER--NAME/<commit>   empty: all of its files are there
"""

import fcntl
from pathlib import Path

from em_bench.errors import UserError
from em_bench.files import cache_dir, write_text

FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
_stated: dict[str, str] = {}  # hub id -> what a sweep says to its job


def use_revision(hub_id: str, revision: str) -> None:
    """Let the model be of that commit in this process, whatever is pinned on the machine: a sweep has one for all machines."""
    _stated[hub_id] = revision


def pinned(hub_id: str) -> str | None:
    """The commit that the model stands for here; None before its first use."""
    pin = _folder(hub_id) / "pin"
    return _stated.get(hub_id) or (pin.read_text(encoding="utf-8").strip() if pin.is_file() else None)


def snapshot(hub_id: str, revision: str | None = None) -> Path:
    """The folder of a model (owner/name) at `revision`, else at its pin, else at the newest commit, which becomes its pin.

    Processes that ask at once wait for the first. Raises UserError for what cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    noted = _folder(hub_id)
    noted.mkdir(parents=True, exist_ok=True)
    with open(noted / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = revision or pinned(hub_id)
        if wanted and (noted / wanted).is_file():
            try:
                return Path(snapshot_download(hub_id, revision=wanted, allow_patterns=FILES, local_files_only=True))
            except LocalEntryNotFoundError:
                pass  # the hub's own cache has been emptied
        try:
            folder = Path(snapshot_download(hub_id, revision=wanted, allow_patterns=FILES))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as e:
            at = f" at {wanted}" if wanted else ""
            raise UserError(
                f"{hub_id}{at}: cannot be fetched from the hub ({type(e).__name__}); check the name, the network and HF_TOKEN"
            ) from None
        if not wanted:
            write_text(noted / "pin", folder.name + "\n")
        (noted / folder.name).touch()
        return folder


def holds(hub_id: str, file: str, revision: str | None = None) -> bool:
    """Whether a repository of models (owner/name) has a file; what is on the disk already is not asked for.

    Raises UserError for a repository that cannot be reached or is not there.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi

    wanted = revision or pinned(hub_id)
    if wanted and (_folder(hub_id) / wanted).is_file():
        return (snapshot(hub_id, wanted) / file).is_file()
    try:
        return HfApi().file_exists(hub_id, file, revision=wanted)
    except (HTTPError, OSError):
        return (snapshot(hub_id, wanted) / file).is_file()  # no network: what the hub's own cache holds


def _folder(hub_id: str) -> Path:
    return cache_dir() / "hub" / hub_id.replace("/", "--")
