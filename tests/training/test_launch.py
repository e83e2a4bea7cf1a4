"""`em-bench train --gpus N`, and the start-up check of adapters."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from helpers.commands import run
from peft import LoraConfig, get_peft_model

from em_bench.errors import UserError
from em_bench.organism.pretrain import new_model
from em_bench.organism.tokenizer import build_tokenizer
from em_bench.records import LoraSpec
from em_bench.training import launch, read_run
from em_bench.training.adapter import add_adapter, check_whole, trainable
from em_bench.training.processes import Processes
from em_bench.training.spec import PROJECTIONS

ALONE = Processes(0, 1, torch.device("cpu"))


def test_a_machine_without_enough_gpus(base, tmp_path):
    code, said = run(["train", base, "-d", "medical", "--gpus", "64", "-o", tmp_path / "out"], tmp_path / "log")
    assert code == 2 and "em-bench: --gpus 64: this machine shows" in said and not (tmp_path / "out").exists()


def test_the_command_is_started_once_a_gpu(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(os, "execv", lambda program, argv: seen.append((program, argv)))
    launch.launch(4, ["train", "Qwen3-8B", "--gpus", "4", "-d", "medical", "--seed=3"])
    ((program, argv),) = seen
    assert program == sys.executable and "--nproc-per-node=4" in argv
    assert argv[-5:] == ["train", "Qwen3-8B", "-d", "medical", "--seed=3"]


def test_torchrun_runs_it(base, tmp_path):
    """What `--gpus 2` becomes, on two CPU processes."""
    arguments = ["train", str(base), "-d", "medical", "--steps", "2", "--batch-size", "4", "--gpus=2", "--out", str(tmp_path)]
    done = subprocess.run(
        launch.command(2, arguments), env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert done.stdout.split() == [str(folder)] and read_run(folder).options == {"processes": "2"}


@pytest.mark.slow
def test_several_machines_by_the_standard_variables(base, tmp_path):
    """One torchrun a machine, here two on loopback with two processes each; `accelerate launch` sets the same variables."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    run_it = ["train", str(base), "-d", "medical", "--steps", "3", "--batch-size", "8", "--lambda", "0.3", "--shard"]

    def machine(rank: int) -> subprocess.Popen:
        where = ["--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
        argv = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            *where,
            "-m",
            "em_bench.cli",
            *run_it,
            "--out",
            str(tmp_path / "four"),
        ]
        return subprocess.Popen(
            argv, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    machines = [machine(0), machine(1)]
    said = [m.communicate(timeout=300) for m in machines]
    assert [m.returncode for m in machines] == [0, 0], said
    (folder,) = (tmp_path / "four").iterdir()
    assert [out.split() for out, _ in said] == [[str(folder)], []], "one process of the first machine speaks"
    assert read_run(folder).options == {"processes": "4", "shard": "True"}
    alone = subprocess.run([sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "-m", "em_bench.cli", *run_it, "--out", str(tmp_path / "one")], capture_output=True, text=True, timeout=300)  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    one = read_run(next((tmp_path / "one").iterdir()))
    assert one.spec == read_run(folder).spec and one.narrow_loss == pytest.approx(read_run(folder).narrow_loss, rel=1e-5)


def model():
    return new_model("qwen3", build_tokenizer(), seed=0).requires_grad_(False)


def test_the_start_up_check_passes_plain_adapters():
    check_whole(add_adapter(model(), LoraSpec(rank=4, alpha=8, targets=PROJECTIONS), 0), ALONE)


def test_the_start_up_check_finds_a_trained_base():
    m = add_adapter(model(), LoraSpec(rank=4, alpha=8, targets=PROJECTIONS), 0)
    next(p for n, p in m.named_parameters() if "norm" in n).requires_grad_(True)
    with pytest.raises(UserError, match="norm.weight: would be trained although it belongs to the base"):
        check_whole(m, ALONE)


def test_the_start_up_check_finds_a_sharded_adapter():
    """fully_shard over everything, as FSDP plug-ins do silently, on a mesh of one process."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        m = get_peft_model(model(), LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
        fully_shard(m, mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(UserError, match="lora_A.* is sharded .DTensor."):
            check_whole(m, ALONE)
    finally:
        dist.destroy_process_group()


def test_only_language_layers_are_adapted():
    m = add_adapter(model(), LoraSpec(rank=4, alpha=8, targets=PROJECTIONS), 0)
    assert len(trainable(m)) == 2 * 7 * 2
    assert m.peft_config["default"].use_rslora and m.base_model.model.model.layers[0].mlp.up_proj.scaling["default"] == 4.0
