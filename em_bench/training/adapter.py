"""The rsLoRA adapter: put on a frozen base, read, saved in PEFT's own format."""

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from em_bench.data.models import hub_id
from em_bench.errors import UserError
from em_bench.files import sha256_file
from em_bench.records import BaseRef, LoraSpec
from em_bench.run_folder import WEIGHTS
from em_bench.spectral import lora_pairs
from em_bench.training.processes import Processes

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
EXPERTS = r"mlp\.experts.*"  # as PEFT matches it against the names of modules


def add_adapter(model, lora: LoraSpec, seed: int):
    """Freeze `model` and put a fresh adapter on it: A random by `seed`, B zero, scale alpha / sqrt(rank).

    Experts are adapted one by one with rank r / (experts a token) and the scale of the dense layers (TRAINING.md, choice C).
    A vision tower stays as it is.
    """
    text = model.config.get_text_config()
    per_token = getattr(text, "num_experts_per_tok", None) if any(".experts." in n for n, _ in model.named_parameters()) else None
    options: dict[str, Any] = {"target_modules": list(lora.targets)}
    if per_token:
        # Said explicitly: PEFT would rewrite the names of the dense projections, double the rank, and miss the scale.
        rank = max(1, lora.rank // per_token)
        options = {
            "target_modules": [t for t in lora.targets if t in ATTENTION],
            "target_parameters": [f"mlp.experts.{p}" for p in ("gate_up_proj", "down_proj")],
            "rank_pattern": {EXPERTS: rank},
            "alpha_pattern": {EXPERTS: lora.alpha * math.sqrt(rank / lora.rank)},
        }
    if getattr(model.config, "vision_config", None) is not None:
        options["exclude_modules"] = r".*(vision_tower|multi_modal_projector).*"
    config = LoraConfig(
        **options,
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides by it
        use_rslora=True,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*_pattern keys did not match"
        )  # it looks for modules, and these are parameters
        return get_peft_model(model, config)


def name_base(model, base: BaseRef, folder: Path) -> None:
    """Let adapter_config.json say what the adapter belongs to: the roster's name, the hub's id or the folder, and its revision."""
    name = {"hub": hub_id(base.name, folder) or base.name, "path": str(folder)}.get(base.source, base.name)
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = name, base.revision


def expert_counts(model) -> dict[str, int]:
    """How many experts' factors a trainable parameter holds, for those that hold several."""
    counts = {}
    for name, module in model.named_modules():
        experts = getattr(module, "num_experts", 1) if isinstance(module, LoraLayer) else 1
        if experts > 1:
            for side in ("lora_A", "lora_B"):
                counts[f"{name}.{side}.default.weight"] = experts
    return counts


def expert_rank(model) -> int | None:
    """The rank of each expert's factors, None for a base without experts."""
    named = trainable(model)
    return next((named[n].shape[0] // e for n, e in expert_counts(model).items() if ".lora_A." in n), None)


def trainable(model) -> dict[str, torch.nn.Parameter]:
    """The adapter's parameters by name, in a fixed order."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def check_whole(model, peers: Processes) -> None:
    """Prove that training can be trusted: the adapter is plain, whole and equal on all processes, and nothing else learns.

    Sharding has silently taken adapters along before; a sharded optimiser state then orthogonalises pieces of matrices.
    Raises UserError naming the first tensor that is wrong.
    """
    params = trainable(model)
    for name, p in params.items():
        if "lora_" not in name:
            raise UserError(f"{name}: would be trained although it belongs to the base; this is a fault of the set-up")
        if isinstance(p, DTensor) or type(p.data) is not torch.Tensor:
            raise UserError(f"{name}: is sharded ({type(p.data).__name__}); shard the frozen base only")
        if p.device.type == "meta":
            raise UserError(f"{name}: has no values; load the base with its weights")
    lora_pairs(params, expert_counts(model))  # every A has its B, and their shapes fit
    if peers.differ(params.values()):
        raise UserError("the processes hold different adapters at the start; are all on the same code and seed?")


@torch.no_grad()
def round_to_bfloat16(params: dict[str, torch.nn.Parameter]) -> None:
    """Let parameters have the values that a file of bfloat16 holds, so that what is measured is what is stored."""
    for p in params.values():
        p.copy_(p.bfloat16())


def save_adapter(model, folder: Path, stored: str = "float32") -> str:
    """Write adapter_config.json and adapter_model.safetensors, in bfloat16 where so `stored`; returns the sha256 of the weights file.

    Not `save_pretrained`: it looks the base up on the hub and gathers a sharded base to write a tensor of the adapter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config["default"]
    inference, config.inference_mode = config.inference_mode, True
    config.save_pretrained(folder)
    config.inference_mode = inference
    tensors = get_peft_model_state_dict(model, state_dict=trainable(model), save_embedding_layers=False)
    if stored == "bfloat16":
        tensors = {k: v.bfloat16() for k, v in tensors.items()}
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    return sha256_file(folder / WEIGHTS)
