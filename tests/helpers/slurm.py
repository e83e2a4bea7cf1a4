"""A real SLURM on loopback: munged, slurmctld and two slurmd of this machine, accounting off or on, eight GPUs that are counted only.

Partitions: main preempts the other two; jobs of low are queued again, jobs of frail are cancelled.

It needs root, the programs of slurm-wlm and munge, and the place of SLURM's own configuration free: Snakemake's executor
takes SLURM_CONF away from jobs, so that they find the cluster by /etc/slurm/slurm.conf alone.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from helpers import slurmdbd

SYSTEM = Path("/etc/slurm/slurm.conf")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")
NODES, GPUS_A_NODE = ("emb1", "emb2"), 4
CONF = """\
ClusterName=embtest
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={top}/run/munge.sock,cred_expire=15
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={ports[0]}
StateSaveLocation={top}/state
SlurmdSpoolDir={top}/spool/%n
SlurmctldPidFile={top}/run/slurmctld.pid
SlurmdPidFile={top}/run/slurmd.%n.pid
SlurmctldLogFile={top}/log/slurmctld.log
SlurmdLogFile={top}/log/slurmd.%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
{accounting}
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=2,sched_min_interval=0,requeue_delay=1
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
KillWait=2
MinJobAge=600
MailProg=/bin/true
GresTypes=gpu
SlurmdParameters=config_overrides
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=low Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=frail Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=CANCEL
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
"""


def why_not() -> str | None:
    """Why there can be no cluster here, with accounting or without; None where there can."""
    if os.geteuid():
        return "SLURM's daemons are started as root"
    if missing := [p for p in (*PROGRAMS, *slurmdbd.PROGRAMS) if not shutil.which(p, path=f"{os.environ['PATH']}:/usr/sbin")]:
        return f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge slurmdbd mariadb-server-core mariadb-client-core)"
    if SYSTEM.exists() and not SYSTEM.is_symlink():
        return f"{SYSTEM} is somebody's"
    return None


class Cluster:
    """The running daemons, by their process ids."""

    def __init__(self, top: Path, accounting: bool):
        self.top, self.daemons, self.accounting = top, {}, accounting
        self.host = socket.gethostname().split(".")[0]
        for name in ("state", "spool", "log", "run", "dev"):
            (top / name).mkdir(parents=True)
        top.chmod(0o755)
        key = top / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        ports = _free_ports(3 + len(NODES))
        self.dbd_ports = ports[-2:]
        nodes = "\n".join(
            f"NodeName={n} NodeHostname={self.host} NodeAddr=127.0.0.1 Port={p} CPUs=8 Boards=1 SocketsPerBoard=1 "
            f"CoresPerSocket=8 ThreadsPerCore=1 RealMemory=20000 Gres=gpu:{GPUS_A_NODE} State=UNKNOWN"
            for n, p in zip(NODES, ports[1:-2], strict=True)
        )
        self.conf = top / "slurm.conf"
        lines = slurmdbd.cluster_lines(top, ports[-1]) if accounting else "AccountingStorageType=accounting_storage/none"
        self.conf.write_text(CONF.format(host=self.host, top=top, ports=ports, nodes=nodes, accounting=lines))
        # Device nodes that behave like /dev/null: SLURM numbers and hands them out, no CUDA program can use them.
        for i in range(GPUS_A_NODE):
            os.mknod(top / "dev" / f"fake{i}", 0o20666, os.makedev(1, 3))
        files = f"{top}/dev/fake[0-{GPUS_A_NODE - 1}]"
        (top / "gres.conf").write_text("AutoDetect=off\n" + "".join(f"NodeName={n} Name=gpu File={files}\n" for n in NODES))
        (top / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def start(self) -> None:
        """All daemons, until both nodes are idle."""
        run = self.top / "run"
        munge = [f"--socket={run}/munge.sock", f"--pid-file={run}/munged.pid", f"--seed-file={run}/munge.seed"]
        self._daemon(
            "munged",
            "--force",
            "--foreground",
            f"--key-file={self.top}/munge.key",
            f"--log-file={self.top}/log/munged.log",
            *munge,
        )
        _wait(lambda: (run / "munge.sock").exists())
        if self.accounting:
            slurmdbd.start(self.top, self.host, self.dbd_ports, self._daemon, self.ask, _wait)
        self.start_controller()
        for node in NODES:
            self._daemon("slurmd", "-D", "-f", str(self.conf), "-N", node, name=node)
        _wait(lambda: self.ask("sinfo", "-h", "-p", "main", "-o", "%T").split() == ["idle"])

    def start_controller(self) -> None:
        """slurmctld, again if it was killed."""
        self._daemon("slurmctld", "-D", "-f", str(self.conf))
        _wait(lambda: "UP" in self.ask("scontrol", "ping"))

    def kill_controller(self) -> None:
        """kill -9 of slurmctld."""
        self.daemons["slurmctld"].kill()
        self.daemons.pop("slurmctld").wait()

    def ask(self, *command: str) -> str:
        """Output of one of SLURM's commands."""
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.environment).stdout

    def jobs(self, form: str = "%A %j %T", *more: str) -> list[list[str]]:
        """Lines of squeue."""
        return [line.split() for line in self.ask("squeue", "-h", "-o", form, *more).splitlines()]

    @property
    def environment(self) -> dict[str, str]:
        """Without what another cluster left there."""
        mine = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        return mine | {"SLURM_CONF": str(self.conf), "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def stop(self) -> None:
        """End every daemon and what they started."""
        self.ask("scancel", "--state=PENDING", "--me")
        self.ask("scancel", "--me")
        deadline = time.monotonic() + 10
        while self.jobs() and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in self.steps():  # of a test that failed half way, or with slurmctld away
            process.kill()
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def steps(self) -> list[psutil.Process]:
        """Every living process that a job of this cluster started, counted from the operating system."""
        found = []
        for p in psutil.process_iter():
            try:
                if p.environ().get("SLURM_CONF") == str(self.conf) and "SLURM_JOB_ID" in p.environ():
                    found.append(p)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                pass
        return found

    def _daemon(self, program: str, *arguments: str, name: str | None = None) -> None:
        log = open(self.top / "log" / f"{name or program}.out", "ab")
        path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
        self.daemons[name or program] = subprocess.Popen([path, *arguments], stdout=log, stderr=log, env=self.environment)


@contextmanager
def cluster(top: Path, accounting: bool = False) -> Iterator[Cluster]:
    """A running cluster that every program of this machine finds, one at a time."""
    with open("/tmp/em-bench-test-slurm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = Cluster(top, accounting)
        SYSTEM.parent.mkdir(exist_ok=True)
        SYSTEM.unlink(missing_ok=True)
        SYSTEM.symlink_to(made.conf)
        try:
            made.start()
            yield made
        finally:
            made.stop()
            SYSTEM.unlink(missing_ok=True)


def _free_ports(n: int) -> list[int]:
    held = [socket.socket() for _ in range(n)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def _wait(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("SLURM did not come up")
        time.sleep(0.1)
