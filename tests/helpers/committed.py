"""The results that are committed."""

import gzip

from em_bench import assets
from em_bench.records import Results


def committed(preset: str) -> Results:
    """Of baselines/results/PRESET."""
    return Results.model_validate_json(
        gzip.decompress(assets.path("baselines", "results", preset, "results.json.gz").read_bytes())
    )
