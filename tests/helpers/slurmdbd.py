"""SLURM's accounting for a test cluster: a MariaDB of its own on loopback, and slurmdbd before it."""

import secrets
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("mariadbd", "mariadb-install-db", "my_print_defaults", "slurmdbd", "sacct", "sacctmgr")
CONF = """\
AuthType=auth/munge
AuthInfo=socket={top}/run/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={ports[1]}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[0]}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
LogFile={top}/log/slurmdbd.log
PidFile={top}/run/slurmdbd.pid
"""


def cluster_lines(top: Path, port: int) -> str:
    """What slurm.conf says of it. A job without a known account is refused."""
    return (
        "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageEnforce=associations\n"
        f"AccountingStorageHost=127.0.0.1\nAccountingStoragePort={port}\nAccountingStoragePass={top}/run/munge.sock"
    )


def start(top: Path, host: str, ports: list[int], daemon: Callable, ask: Callable, wait: Callable) -> None:
    """Both daemons, with the cluster's name and an account `theory` of root's registered. Before slurmctld, after munged."""
    data, socket, password = top / "mariadb", top / "run" / "mariadb.sock", secrets.token_hex(16)
    ask(
        "mariadb-install-db",
        "--no-defaults",
        f"--datadir={data}",
        "--user=root",
        "--skip-test-db",
        "--auth-root-authentication-method=socket",
    )
    sql = top / "init.sql"
    sql.write_text(
        f"CREATE DATABASE slurm;\nCREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';\nGRANT ALL ON slurm.* TO slurm@'127.0.0.1';\n"
    )
    daemon(
        "mariadbd", "--no-defaults", f"--datadir={data}", "--user=root", "--bind-address=127.0.0.1", f"--port={ports[0]}",
        f"--socket={socket}", f"--init-file={sql}", "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900",
    )  # fmt: skip
    wait(socket.exists)
    conf = top / "slurmdbd.conf"
    conf.touch(0o600)
    conf.write_text(CONF.format(top=top, host=host, ports=ports, password=password))
    daemon("slurmdbd", "-D")
    wait(lambda: "embtest" in ask("sacctmgr", "-n", "-i", "add", "cluster", "embtest") + ask("sacctmgr", "-n", "list", "cluster"))
    ask("sacctmgr", "-i", "add", "account", "theory", "cluster=embtest")
    ask("sacctmgr", "-i", "add", "user", "root", "account=theory", "cluster=embtest")
