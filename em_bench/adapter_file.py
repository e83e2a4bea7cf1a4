"""A PEFT LoRA adapter on disk: its tensors, what of it is an update B A, and what is refused because it is none."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from em_bench.errors import UserError
from em_bench.files import open_regular, read_text, strict_json
from em_bench.line import one_line
from em_bench.run_folder import ADAPTER, CONFIG, WEIGHTS

if TYPE_CHECKING:
    import torch

EXPERT = re.compile(r"\.experts(?=\.(base_layer\.)?lora_)")  # PEFT's name of an adapted parameter of all experts
_BASE_CHANGED = ("pissa", "corda", "olora", "loftq", "lora_ga")  # starts of `init_lora_weights` that subtract BA from the base
_OTHER_UPDATE = {  # field of LoraConfig -> what the update is instead
    "use_dora": "DoRA: the update is scaled column by column by lora_magnitude_vector",
    "use_qalora": "QA-LoRA: A acts on pooled inputs",
    "use_bdlora": "BD-LoRA: A or B is block-diagonal",
    "kasa_config": "KaSA: a diagonal lies between B and A",
    "monteclora_config": "Monteclora: A and B are means of what is drawn",
    "arrow_config": "Arrow: tokens are routed over several adapters",
}
_OTHER_TENSOR = {"lora_magnitude_vector": "use_dora", "lora_diag": "kasa_config"}


MAX_CONFIG = 2**20  # bytes
MAX_RANK = 2**16


class AdapterTensors(dict):
    """The tensors of an adapter by name.

    experts: which of them hold the factors of several experts, and of how many. scales: name of an A -> what B A is multiplied by,
    where known. left_out: kind -> modules that the adapter also changes, by something other than a B A.
    """

    experts: dict[str, int] | None = None
    scales: dict[str, float] | None = None
    left_out: dict[str, list[str]]


def load_adapter(folder: Path) -> AdapterTensors:
    """The tensors of a PEFT adapter folder, or of the `adapter` folder inside a run. Reads no pickle.

    Raises UserError where there is no LoRA adapter, or its update is not B A (DoRA, PiSSA before conversion, ...).
    """
    folder = Path(folder)
    folder = folder / ADAPTER if (folder / ADAPTER).is_dir() else folder
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        fix = "save it again with safe_serialization=True" if pickled else "name the folder that PEFT's save_pretrained wrote"
        raise UserError(f"{folder}: {'a pickled adapter is not read' if pickled else f'holds no {WEIGHTS}'}; {fix}")
    config = read_config(folder)
    tensors = _load(folder / WEIGHTS, config)
    tensors.experts = _experts(tensors, config, folder)
    tensors.scales = _scales(tensors, config)
    return tensors


def load_run_adapter(path: Path | bytes, expert_rank: int | None) -> AdapterTensors:
    """The tensors of a run's adapter_model.safetensors (the file, or its bytes), whose record says what rank each expert has: no file beside it is read.

    Raises UserError for what is no safetensors file, or holds anything that training does not make.
    """
    tensors = _load(path, {})
    if tensors.left_out:
        raise UserError(f"{_named(path)}: holds {', '.join(tensors.left_out)}, which em-bench does not train")
    if expert_rank:
        tensors.experts = {n: _size(n, t) // expert_rank for n, t in tensors.items() if EXPERT.search(n)}
    return tensors


def _named(path: Path | bytes) -> Path:
    return path if isinstance(path, Path) else Path("the adapter")


def _load(source: Path | bytes, config: Mapping) -> AdapterTensors:
    from safetensors.torch import load, load_file

    path = _named(source)
    try:
        if isinstance(source, Path):
            open_regular(source).close()
        tensors = AdapterTensors(load_file(source) if isinstance(source, Path) else load(source))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: no safetensors file ({_first_line(e)}); save the adapter again") from None
    _check_update(path.parent, config, tensors)
    _check_numbers(path, tensors)
    tensors.left_out = _left_out(tensors)
    return tensors


def _first_line(e: Exception) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0][:200]


def _size(name: str, tensor: "torch.Tensor") -> int:
    """Rank, or the sum of the experts' ranks, of a factor."""
    return tensor.shape[0 if ".lora_A." in name else 1]


def read_config(folder: Path) -> dict:
    """adapter_config.json, empty where there is none. Raises UserError for what is no JSON object, and for ranks and scales that are none."""
    path = folder / CONFIG
    if not path.exists():
        return {}
    try:
        found = strict_json(read_text(path, limit=MAX_CONFIG))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}: not readable as JSON; save the adapter again with PEFT's save_pretrained")
    for field, patterns, good in (("r", "rank_pattern", _is_rank), ("lora_alpha", "alpha_pattern", _is_scale)):
        own = found.get(patterns) or {}
        values = [v for v in (found.get(field), *(own.values() if isinstance(own, dict) else ())) if v is not None]
        if not isinstance(own, dict) or not all(map(good, values)):
            raise UserError(
                f"{path}: {field}, {patterns}: holds what is no {field} of an adapter; save it again with PEFT's save_pretrained"
            )
    return found


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_RANK


def _is_scale(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e6


def _check_numbers(path: Path, tensors: "Mapping[str, torch.Tensor]") -> None:
    """Raise UserError for factors without rows, and for numbers that are none: nothing can be measured of them."""
    import torch

    for name, tensor in tensors.items():
        if (
            (".lora_A." in name or ".lora_B." in name)
            and not name.endswith(".bias")
            and (tensor.ndim < 2 or 0 in tensor.shape or not tensor.is_floating_point())
        ):
            raise UserError(f"{path}: {one_line(name, 120)}: is no matrix of an adapter ({tensor.dtype}, {tuple(tensor.shape)})")
        if tensor.is_floating_point() and not torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all():
            raise UserError(
                f"{path}: {one_line(name, 120)}: holds NaN or infinity; the training diverged, take an earlier checkpoint"
            )


def _check_update(folder: Path, config: Mapping, tensors: "Mapping[str, torch.Tensor]") -> None:
    kind = str(config.get("peft_type") or "LORA")
    if kind != "LORA" or not any(".lora_A." in name for name in tensors):
        what = f"is {one_line(kind, 60)}" if kind != "LORA" else "holds no LoRA matrices (lora_A, lora_B)"
        raise UserError(f"{folder}: {what}; em-bench measures LoRA adapters")
    fields = [f for f in _OTHER_UPDATE if config.get(f)]
    fields += [f for part, f in _OTHER_TENSOR.items() if any(f".{part}" in name for name in tensors)]
    if fields:
        raise UserError(f"{folder}: {_OTHER_UPDATE[fields[0]]}, so the spectrum of B A is not the update's; it is not measured")
    started = str(config.get("init_lora_weights") or "")
    if started.lower().startswith(_BASE_CHANGED):
        raise UserError(
            f"{folder}: init_lora_weights={started} took B A out of the base before training, so B A is not the update; "
            "save it with PEFT's path_initial_model_for_weight_conversion"
        )


def rescaled(tensors: AdapterTensors, scale: float) -> AdapterTensors:
    """The adapter with its update B A times `scale`: every lora_B is multiplied, and kept in float32 or wider, so that no narrow type rounds it.

    Raises UserError for an adapter that changes the base by other means than a B A: these would stay as they are.
    """
    import torch

    if tensors.left_out:
        kinds = "; ".join(f"{kind}: {', '.join(modules[:2])}" for kind, modules in tensors.left_out.items())
        raise UserError(f"the adapter also changes what is no B A ({kinds}), so its update has no scale; it is not rescaled")
    out = AdapterTensors(
        {
            n: (t.double() * scale).to(torch.promote_types(t.dtype, torch.float32)) if ".lora_B." in n else t
            for n, t in tensors.items()
        }
    )
    out.experts, out.scales, out.left_out = tensors.experts, tensors.scales, {}
    return out


def _experts(tensors: "Mapping[str, torch.Tensor]", config: Mapping, folder: Path) -> dict[str, int]:
    """Experts a tensor, from the ranks in adapter_config.json: a parameter of E experts has E times its rank."""
    names = [n for n in tensors if EXPERT.search(n)]
    if config.get("target_parameters"):
        names = [n for n in tensors if ".lora_A." in n or ".lora_B." in n]
    if not names:
        return {}
    if not isinstance(config.get("r"), int) or not isinstance(config.get("rank_pattern") or {}, dict):
        raise UserError(f"{folder / CONFIG}: missing or without r; it says what rank the experts' matrices have")
    counts = {}
    for name in names:
        rank, size = _own(config, "rank_pattern", name, config["r"]), _size(name, tensors[name])
        if not isinstance(rank, int) or rank < 1 or size % rank:
            raise UserError(
                f"{folder / CONFIG}: rank {rank} of {_module(name)} does not divide its matrix's {size}; is it this adapter's?"
            )
        counts[name] = size // rank
    return counts


def _scales(tensors: AdapterTensors, config: Mapping) -> dict[str, float]:
    """PEFT's alpha / r, or alpha / sqrt(r), of each B A."""
    scales = {}
    for name in (n for n in tensors if ".lora_A." in n):
        rank, alpha = (
            _size(name, tensors[name]) // (tensors.experts or {}).get(name, 1),
            _own(config, "alpha_pattern", name, config.get("lora_alpha")),
        )
        if rank and isinstance(alpha, int | float):
            scales[name] = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return scales


def _module(name: str) -> str:
    return re.sub(r"(\.base_layer)*\.lora_[AB]\..*", "", name)


def _own(config: Mapping, patterns: str, name: str, default):
    """What a pattern of the configuration says of the module of a tensor; the first that matches wins."""
    module, found = _module(name), config.get(patterns)
    return next((v for p, v in (found if isinstance(found, dict) else {}).items() if _names(p, patterns, module)), default)


def _names(pattern: str, where: str, module: str) -> bool:
    r"""PEFT's `re.match(rf"(.*\.)?({pattern})$", module)`, in time that grows with both alone: names, `.`, `.*`, and `|` between them.

    Raises UserError for any other regular expression: a stranger's is not run.
    """
    found = False
    for part in pattern.split("|"):
        tokens = re.findall(r"\\[.]|\.\*|[A-Za-z0-9_.-]", text := part.removeprefix("^").removesuffix("$"))
        if len(pattern) > 300 or not tokens or "".join(tokens) != text:
            raise UserError(f"{CONFIG}: {where}: {one_line(pattern, 80)!r} is more than a module's name; name each module")
        at = {0} if part.startswith("^") else {0, *(i + 1 for i, c in enumerate(module) if c == ".")}
        for token in tokens:
            if token == ".*":
                at = set(range(min(at), len(module) + 1)) if at else at
            else:
                at = {i + 1 for i in at if i < len(module) and token in (".", module[i], "\\" + module[i])}
        found = found or len(module) in at
    return found


def _left_out(tensors: "Mapping[str, torch.Tensor]") -> dict[str, list[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for name in tensors:
        module = re.sub(r"\.(lora_|token_adapter|trainable_tokens|weight$|bias$).*", "", name.removeprefix("base_model.model."))
        if "lora_embedding_" in name:
            found["embeddings"].add(module)
        elif "trainable_tokens" in name:
            found["trained tokens"].add(module)
        elif name.endswith(".bias"):
            found["biases"].add(module)
        elif ".lora_A." not in name and ".lora_B." not in name:
            found["whole modules"].add(module)
    return {kind: sorted(modules) for kind, modules in sorted(found.items())}
