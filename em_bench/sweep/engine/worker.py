"""A worker: leases its GPUs once, loads its base once, and does the jobs on it that the forkserver sends, one after another.

A job that fails leaves it alive. One that ran out of memory, or broke the CUDA context, ends it: the next try has a new one.
"""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack

from em_bench.parent_death import tether
from em_bench.sweep.engine.forkserver import FIT, Request, answered
from em_bench.sweep.engine.gpu_lease import VISIBLE, own_gpus


def work(queue: socket.socket, run: Callable[[str], int]) -> None:
    """Until the queue is closed, or a job leaves this process unfit for another."""
    own, leased = (os.dup(1), os.dup(2)), False
    with ExitStack() as held:

        def job(job_id: str) -> int:
            nonlocal leased
            if not leased:
                held.enter_context(own_gpus(request.gpus))
                leased = True
            else:
                print(f"GPUs {os.environ.get(VISIBLE)}, the base in memory", flush=True)
            return run(job_id)

        while True:
            message, fds, _, _ = socket.recv_fds(queue, 4096, 3)
            if not message:
                return
            request = Request.model_validate_json(message)
            with socket.socket(fileno=fds[2]) as asking:
                # Said before the job's process ends, so that nobody asks this worker again who should not, or another who need not.
                code = answered(job, request.job, asking, fds[:2], lambda code: queue.sendall(FIT if code in (0, 1) else b"-"))
            for fd, stream in zip(own, (1, 2), strict=True):
                os.dup2(fd, stream)
            for fd in fds[:2]:
                os.close(fd)
            if code not in (0, 1):
                return


if __name__ == "__main__":  # python -m em_bench.sweep.engine.worker PARENT-PID QUEUE-FD, in the work folder
    tether(int(sys.argv[1]))
    from em_bench.sweep.engine.ranks import Ranks
    from em_bench.sweep.engine.torchrun import run_here

    ranks = Ranks()
    work(socket.socket(fileno=int(sys.argv[2])), lambda job_id: run_here(job_id, ranks.run))
