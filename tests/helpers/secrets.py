"""Keys that a test plants, and looks for in all that comes out."""

from collections.abc import Iterable
from pathlib import Path

KEYS = {
    "OPENAI_API_KEY": "sk-planted-openai-0001",
    "HF_TOKEN": "hf_planted_hub_0002",
    "WANDB_API_KEY": "planted-wandb-0003",
    "AWS_SECRET_ACCESS_KEY": "planted-cloud-0004",
}


def found_in(top: Path, *said: str, more: Iterable[str] = ()) -> list[str]:
    """The planted ones, and `more`, that are in a file below `top`, in a file's name, or in what was said."""
    everything = b"\0".join((*(p.read_bytes() for p in top.rglob("*") if p.is_file()), *(s.encode() for s in said)))
    names = "\0".join(str(p) for p in top.rglob("*")).encode()
    return [secret for secret in (*KEYS.values(), *more) if secret.encode() in everything or secret.encode() in names]
