"""Equivalence classes through the real command line: how a run is computed does not change what comes out."""

import json
import random

import pytest
import torch
from helpers.commands import kill_at, run, run_ranks, start, start_ranks
from safetensors.torch import load_file

from em_bench.optim import load_recipes
from em_bench.organism import narrow_rows
from em_bench.training import read_run

RECIPES = tuple(load_recipes())
STEPS = 20


@pytest.fixture(scope="module", autouse=True)
def rows_file(tmp_path_factory):
    """A small dataset, as users bring their own."""
    global DATA
    DATA = tmp_path_factory.mktemp("data") / "rows.jsonl"
    DATA.write_text("".join(json.dumps(row) + "\n" for row in narrow_rows("medical")[0][:80]))


def command(base, out, recipe="adamw", *more) -> list:
    lr = {"sgd": 0.03, "lion": 3e-4, "muon": 2e-3}.get(recipe, 1e-3)
    fixed = ["--steps", STEPS, "--batch-size", 8, "--rank", 4, "--lambda", 0.3, "--lr", lr]
    return ["train", base, "--dataset", DATA, "--recipe", recipe, *fixed, "--out", out, *more]


def adapter(out) -> dict[str, torch.Tensor]:
    (folder,) = (p for p in out.iterdir() if not p.name.startswith("."))
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def losses(out) -> list[dict]:
    (folder,) = (p for p in out.iterdir() if not p.name.startswith("."))
    return [
        {k: v for k, v in json.loads(x).items() if k != "tokens_per_s"} for x in (folder / "train.jsonl").read_text().splitlines()
    ]


def distance(a: dict, b: dict) -> float:
    """Largest relative difference of a tensor."""
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).norm() / b[k].double().norm()) for k in a)


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """recipe, options -> the folder of an uninterrupted run on one process."""
    done = {}

    def make(recipe, *more):
        if (recipe, *more) not in done:
            out = tmp_path_factory.mktemp("whole")
            code, said = run(command(base, out, recipe, *more), out / ".log")
            assert code == 0, said
            done[recipe, *more] = out
        return done[recipe, *more]

    return make


OFTEN = ("adamw", "muon")


@pytest.mark.parametrize(
    "recipe", [r if r in OFTEN else pytest.param(r, marks=pytest.mark.slow) for r in (*RECIPES, "schedulefreeadamw")]
)
def test_killed_and_resumed_is_uninterrupted_bit_for_bit(recipe, base, whole, tmp_path):
    args = command(base, tmp_path, recipe, "--save-every", 0)
    for _ in range(2):  # killed twice, at random steps
        victim = start(args, tmp_path / ".log")
        kill_at([victim], tmp_path, random.randrange(2, 12))
        assert victim.exitcode == -9 and not list(tmp_path.glob("[!.]*")), "no folder that looks finished"
    code, said = run(args, tmp_path / ".log")
    assert code == 0, said
    assert distance(adapter(tmp_path), adapter(whole(recipe))) == 0
    assert losses(tmp_path) == losses(whole(recipe)), "also every line of the log but the speed"


def test_resuming_does_not_start_again(base, tmp_path):
    args = command(base, tmp_path, "adamw", "--save-every", 0)
    victim = start(args, tmp_path / ".log")
    kill_at([victim], tmp_path, 12)
    (log,) = tmp_path.glob(".*.partial/train.jsonl")
    before = log.read_text().splitlines()
    assert run(args, tmp_path / ".log")[0] == 0
    (log,) = tmp_path.glob("[!.]*/train.jsonl")
    assert log.read_text().splitlines()[:10] == before[:10], "the lines of the first process, speed included"


@pytest.mark.parametrize("recipe", ["adamw", "muon"])
@pytest.mark.parametrize("tokens", [100, 1])
def test_passes_do_not_matter(recipe, tokens, whole):
    """Eight rows at once = a few at a time = one by one, in float64 so that only rounding is left."""
    exact = whole(recipe, "--dtype", "float64")
    assert distance(adapter(whole(recipe, "--dtype", "float64", "--max-tokens", tokens)), adapter(exact)) < 1e-7


@pytest.mark.parametrize("form", [("--packed",), ("--gradient-checkpointing",), ("--packed", "--max-tokens", 75)])
def test_forms_do_not_matter(form, whole):
    assert distance(adapter(whole("adamw", "--dtype", "float64", *form)), adapter(whole("adamw", "--dtype", "float64"))) < 1e-7


slow = pytest.mark.slow


@pytest.mark.parametrize("recipe, dtype, tolerance, base_is", [
    ("adamw", "float32", 2e-4, "--shard"),
    ("sgd", "float32", 2e-4, "--replicate"),
    ("lion", "float32", 1e-3, "--shard"),
    ("muon", "float64", 1e-7, "--replicate"),
    pytest.param("adamw", "float32", 2e-4, "--replicate", marks=slow),
    pytest.param("sgd", "float32", 2e-4, "--shard", marks=slow),
    pytest.param("lion", "float32", 1e-3, "--replicate", marks=slow),
    pytest.param("muon", "float64", 1e-7, "--shard", marks=slow),
])  # fmt: skip
def test_two_processes_are_one(recipe, dtype, tolerance, base_is, base, whole, tmp_path):
    one = whole(recipe, "--dtype", dtype)
    codes, said = run_ranks(command(base, tmp_path, recipe, "--dtype", dtype, base_is), tmp_path / ".log")
    assert codes == [0, 0], said
    assert distance(adapter(tmp_path), adapter(one)) < tolerance
    for a, b in zip(losses(tmp_path), losses(one), strict=True):
        for key in ("loss", "held_out_loss", "penalty"):
            assert a[key] == (b[key] and pytest.approx(b[key], rel=1e-4))
    (folder,) = tmp_path.glob("[!.]*")
    assert read_run(folder).options["processes"] == "2"
    assert said.count(str(folder)) == 1, "one process speaks"


@pytest.mark.parametrize("recipe", [pytest.param(r, marks=[] if r == "muon" else slow) for r in RECIPES])
def test_two_processes_killed_and_resumed(recipe, base, tmp_path):
    args = command(base, tmp_path / "killed", recipe, "--save-every", 0)
    victims = start_ranks(args, tmp_path / "log")
    kill_at(victims, tmp_path / "killed", random.randrange(2, 12))
    for out in ("killed", "whole"):
        codes, said = run_ranks(command(base, tmp_path / out, recipe, "--save-every", 0), tmp_path / "log")
        assert codes == [0, 0], said
    assert distance(adapter(tmp_path / "killed"), adapter(tmp_path / "whole")) == 0
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
