"""Where the jobs of a sweep run: on this machine, or wherever a profile's executor takes them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from em_bench import assets
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.records import Record
from em_bench.sweep.engine.gpu_lease import devices
from em_bench.sweep.job_time import all_cores
from em_bench.yaml_file import read_yaml

MOST_JOBS = 100  # at once on a cluster, where the profile does not say
OURS, SNAKEMAKES = "em_bench.yaml", "config.yaml"


class Surroundings(Record):
    """em_bench.yaml of a profile folder: what Snakemake's own config.yaml has no word for."""

    gpus_per_node: int = Field(default=8, gt=0, description="a run that needs more is spread over machines")
    cpus_per_gpu: int = Field(default=4, gt=0, description="threads of a job for each of its GPUs")
    engine: Literal["transformers", "vllm"] | None = Field(
        default=None, description="in place of the presets'; vllm needs EM_BENCH_VLLM, e.g. in `before`"
    )
    before: str = Field(default="", description="bash lines that each job runs first: modules, environment")
    wrap: str = Field(default="", description="put in front of the job's command, e.g. apptainer exec --nv IMAGE")


@dataclass(frozen=True)
class ExecutionProfile:
    """cores, gpus: those of this machine. folder: a Snakemake profile folder. executor: `local` or a plugin's name."""

    cores: int
    gpus: tuple[str, ...] = ()
    folder: Path | None = None
    executor: str = "local"
    jobs: int | None = None
    surroundings: Surroundings = Surroundings()

    @property
    def local(self) -> bool:
        """Whether jobs run on this machine."""
        return self.executor == "local"

    @property
    def at_once(self) -> int:
        """Jobs of ours that a cluster is given at once."""
        return self.jobs or MOST_JOBS


def load_profile(profile: str = "local", cores: int | None = None, gpus: int | None = None) -> ExecutionProfile:
    """From what the command line says. `profile`: local, a shipped profile, or a folder with a config.yaml.

    On this machine `gpus` None takes all that are there. Raises UserError naming the file and what is wrong with it.
    """
    if profile == "local":
        return ExecutionProfile(cores or all_cores(), devices(gpus))
    folder = _folder(profile)
    settings = read_yaml(folder / SNAKEMAKES, dict | None) or {}
    ours = (read_yaml(folder / OURS, Surroundings | None) if (folder / OURS).exists() else None) or Surroundings()
    executor = str(settings.get("executor", "local"))
    if executor != "local":
        if gpus is not None:
            raise UserError(f"--gpus: the profile {profile} takes jobs to {executor}, which has GPUs of its own; leave it away")
        return ExecutionProfile(cores or 1, (), folder.resolve(), executor, settings.get("jobs"), ours)
    asked = _resource(settings.get("resources"), "gpu") if gpus is None else gpus
    return ExecutionProfile(cores or settings.get("cores") or all_cores(), devices(asked), folder.resolve(), surroundings=ours)


def profile_names() -> list[str]:
    """The profiles that come with em_bench."""
    return ["local", *sorted(p.parent.name for p in assets.path("baselines", "profiles").glob(f"*/{SNAKEMAKES}"))]


def _folder(profile: str) -> Path:
    shipped = assets.path("baselines", "profiles", profile)
    for folder in (Path(profile), shipped) if "/" in profile else (shipped, Path(profile)):
        if (folder / SNAKEMAKES).is_file():
            return folder
    raise unknown("profile", profile, profile_names(), f"a folder with a {SNAKEMAKES}")


def _resource(given: Mapping[str, int] | Iterable[object] | None, name: str) -> int | None:
    """A number from `resources`, which Snakemake takes as a mapping or as a list of NAME=NUMBER."""
    if isinstance(given, Mapping):
        return given.get(name)
    found = [str(item).partition("=")[2] for item in given or [] if str(item).startswith(f"{name}=")]
    return int(found[0]) if found else None
