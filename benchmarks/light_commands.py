"""CPU seconds of the commands that must answer at once: the least of some starts, so that a busy machine counts little.

python benchmarks/light_commands.py [--rounds 3]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.light import ABSENT, EVALUATED, LIGHT, MISSPELT, work

GOAL, GOAL_DONE = 1.0, 2.0  # seconds; of an evaluation that is there already


def cpu_seconds(arguments: list[str], folder: Path) -> float:
    """User and system time of one start of em-bench."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "em_bench.cli", *arguments], capture_output=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a row a command; exit code 1 if one is above the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    slow = 0
    with tempfile.TemporaryDirectory() as folder:
        work(Path(folder))
        cpu_seconds(EVALUATED, Path(folder))
        goals = [(a, GOAL) for a in (*LIGHT, *ABSENT, *(m[0] for m in MISSPELT))] + [(EVALUATED, GOAL_DONE)]
        for arguments, goal in goals:
            least = min(cpu_seconds(arguments, Path(folder)) for _ in range(rounds))
            slow += least > goal
            print(f"{least:.2f} s{' ABOVE' if least > goal else ''}  em-bench {' '.join(arguments)}", flush=True)
    print(f"{slow} above {GOAL:g} s, or {GOAL_DONE:g} s with nothing to do")
    sys.exit(slow > 0)


if __name__ == "__main__":
    main()
