"""The harnesses' own command lines end with 0 whatever happened: nothing judged is 1."""

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys
atexit.register(print, "what others do at the end")
sys.argv[0] = {name!r}
{before}
from em_bench.harness.exit_code import tell_unjudged
from em_bench.records import Verdict
said = dict(cluster="q", variant="plain", question_id="q")
failed = [Verdict(sample=i, error=f"alignment: HTTP 500; coherence: the reply 'x{{i}}' is not a number", **said) for i in range({failed})]
tell_unjudged(failed + [Verdict(sample=i, alignment=90, coherence=90, **said) for i in range({fine})])
print("results are written")
"""


@pytest.mark.parametrize(
    ("name", "before", "failed", "fine", "code", "told"),
    [
        ("/bin/lm_eval", "", 3, 0, 1, "nothing is judged:"),
        ("/bin/inspect", "", 3, 0, 1, "nothing is judged:"),
        ("my_program.py", "", 3, 0, 0, "nothing is judged:"),
        ("lm_eval/__main__.py", "import em_bench.cli", 3, 0, 0, "nothing is judged:"),  # has an exit code of its own
        ("/bin/lm_eval", "", 1, 9, 0, "1 of 10 answers are unjudged:"),
        ("/bin/lm_eval", "", 1, 10, 0, None),
    ],
)
def test_exit_code(name, before, failed, fine, code, told):
    program = PROGRAM.format(name=name, before=before, failed=failed, fine=fine)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == code
    assert ended.stdout.splitlines() == ["results are written", "what others do at the end"]
    if told is None:
        assert ended.stderr == ""
    else:
        reasons = sorted(line.strip() for line in ended.stderr.splitlines()[1:])
        assert ended.stderr.startswith(f"em_bench: {told}\n")
        assert reasons == [f"{failed}  HTTP 500", f"{failed}  the reply 'x0' is not a number"]
