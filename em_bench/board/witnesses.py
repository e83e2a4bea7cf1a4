"""Which adapters an entry must hold: of cells that its own finished results draw, so that no author knows them while answers can change."""

from random import Random

from em_bench.board.benchmark import Tier
from em_bench.board.entry import Manifest
from em_bench.board.packed import FILES
from em_bench.files import digest


def witnesses(manifest: Manifest, tier: Tier) -> list[tuple[str, int | None]]:
    """(run id, step; None is the end) of each: the last three evaluated steps of `tier.witnesses` cells, drawn by the tables' hashes."""
    seed = digest([manifest.files.get(name) for name in FILES])
    cells = sorted(manifest.cells, key=lambda c: c.run_id)
    drawn = Random(seed).sample(cells, min(tier.witnesses, len(cells)))
    return [(c.run_id, None if step == max(c.evaluated) else step) for c in drawn for step in sorted(c.evaluated)[-3:]]
