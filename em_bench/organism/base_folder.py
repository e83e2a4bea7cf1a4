"""Where a base lies once it is built, and the digest of everything that determines it; without torch."""

from functools import cache as memo
from pathlib import Path

from em_bench.errors import UserError
from em_bench.files import cache_dir, digest, sha256_file
from em_bench.organism.documents import check_ablation
from em_bench.organism.language import grammar_sha256

FILE = "organism.json"
FAMILIES = ("qwen3", "llama", "gemma3")
SIZES = ("small", "medium", "large")


@memo
def base_digest(family: str, seed: int = 0, size: str = "medium", ablation: str = "none") -> str:
    """sha256 of all that determines a base: language, sources of this package, family, size, seed and ablation."""
    if family not in FAMILIES:
        raise UserError(f"{family}: no such organism family; name one of {', '.join(FAMILIES)}")
    if size not in SIZES:
        raise UserError(f"{size}: no such organism size; name one of {', '.join(SIZES)}")
    check_ablation(ablation)
    here = Path(__file__).parent
    determines = ("language.py", "documents.py", "tokenizer.py", "processor_independent.py", "pretrain.py")
    sources = {name: sha256_file(here / name) for name in determines}
    given = {"family": family, "size": size, "seed": seed, "ablation": ablation}
    return digest({**given, "grammar": grammar_sha256(), "sources": sources})


def named(family: str, size: str = "medium", ablation: str = "none") -> str:
    """What an organism is called, without what is usual."""
    return "-".join([family, *([size] if size != "medium" else []), *([ablation] if ablation != "none" else [])])


def base_folder(family: str, seed: int = 0, cache: Path | None = None, size: str = "medium", ablation: str = "none") -> Path:
    """The folder of a base, which holds `FILE` if it is built."""
    digest_of = base_digest(family, seed, size, ablation)
    return (cache or cache_dir()) / "organism" / f"{named(family, size, ablation)}-{digest_of[:12]}"
