"""Snakemake, tethered to the controller: `python -m em_bench.sweep.engine.tethered_snakemake PARENT SNAKEMAKE-ARGUMENTS...`."""

import sys

from em_bench.parent_death import tether
from em_bench.sweep.engine.slurm import read_cancelled

if __name__ == "__main__":
    tether(int(sys.argv[1]))
    if "--slurm-status-command" in sys.argv:
        read_cancelled()
    from snakemake.cli import main

    main(sys.argv[2:])
