"""A child process that cannot outlive its parent, even when the parent is killed with -9.

`python -m em_bench.parent_death PARENT-PID COMMAND...` does it for a command of others, with all that the command starts.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def tether(parent: int, by: int = signal.SIGKILL) -> None:
    """Tie this process to the process `parent`, which must be the one that started it; ends at once if that has died.

    Linux's kernel does it, by the signal `by`. Elsewhere a thread looks once a second.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, by)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os._exit(1)


def run_tethered(parent: int, command: Sequence[str]) -> int:
    """Run a command in a session of its own; when it ends, or `parent` does, or SIGTERM comes, whatever it started is killed.

    A server's workers often outlive a server that is killed: they are of its process group, which goes as a whole. Returns its
    exit status.
    """

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    tether(parent, signal.SIGTERM)
    own = os.getpid()
    child = subprocess.Popen(command, start_new_session=True, preexec_fn=lambda: tether(own))
    try:
        return child.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(run_tethered(int(sys.argv[1]), sys.argv[2:]))
