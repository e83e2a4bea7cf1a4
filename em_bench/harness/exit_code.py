"""A harness ends with exit code 0 whatever was judged: what the judge did not settle is told, and nothing judged is exit code 1."""

import atexit
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from em_bench.records import NOT_ASKED, Verdict
from em_bench.scoring.unjudged import unjudged_text

COMMANDS = ("lm_eval", "lm-eval", "inspect", "__main__")  # the harnesses' own; a program of one's own reads the numbers


def tell_unjudged(verdicts: Sequence[Verdict]) -> None:
    """Say on stderr why a tenth or more is unjudged; where all are, the harness's own command line ends with 1, its files written."""
    text = unjudged_text(verdicts)
    if text is None:
        return
    tell(text, fails=text.startswith("nothing") and any(v.error != NOT_ASKED for v in verdicts))


def tell(text: str, fails: bool = True) -> None:
    """Say a line on stderr; where it `fails`, the harness's own command line ends with 1, its files written."""
    print(f"em_bench: {text}", file=sys.stderr)
    if fails and Path(sys.argv[0]).stem in COMMANDS and "em_bench.cli" not in sys.modules:
        atexit.register(_end_with_1)


def _end_with_1() -> None:
    atexit.unregister(_end_with_1)
    atexit._run_exitfuncs()  # those of others, which come after ours, as multiprocessing does before it ends a process
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
