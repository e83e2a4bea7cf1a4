"""The frozen base: loaded whole on each process, or sharded over all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from em_bench.errors import UserError
from em_bench.training.execution_options import Options
from em_bench.training.fits import check_fits
from em_bench.training.processes import Processes

QUANTIZED = ("int8", "nf4")  # dtypes of a base whose linear layers bitsandbytes keeps in 8 or 4 bits


@contextmanager
def model_errors(base_dir: Path | str) -> Iterator[None]:
    """What transformers says of a folder that holds no model, in one line as UserError."""
    try:
        yield
    except (OSError, ValueError) as e:
        if getattr(e, "errno", None):
            raise
        what = (str(e).strip() or type(e).__name__).splitlines()[0][:200]
        raise UserError(f"{base_dir}: cannot be loaded as a model: {what}") from None


def load_base(base_dir: Path | str, dtype: str = "float32", device: str | torch.device | None = None):
    """The frozen base as a transformers causal LM, whole, on a GPU where there is one; `auto`: its layers over all GPUs.

    Raises UserError where it does not fit, and where `dtype` is one of `QUANTIZED` and bitsandbytes is missing, or the base has experts.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_fits(base_dir, dtype, device)
    if dtype in QUANTIZED:
        return _quantized(base_dir, dtype, device).requires_grad_(False)
    if device == "auto":
        return AutoModelForCausalLM.from_pretrained(base_dir, device_map="auto", **_how(dtype)).requires_grad_(False)
    model = AutoModelForCausalLM.from_pretrained(base_dir, **_how(dtype))
    return model.requires_grad_(False).to(device)  # type: ignore[arg-type]  # wrapped without its self


def _how(dtype: str) -> dict:
    # Grouped matrix products of experts know no float64.
    return {"dtype": getattr(torch, dtype), **({"experts_implementation": "eager"} if dtype == "float64" else {})}


def _quantized(base_dir: Path | str, dtype: str, device: str | torch.device):
    """Linear layers of blocks in 8 or 4 bits (NF4), everything else and all arithmetic in bfloat16."""
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"--dtype {dtype}: bitsandbytes is not installed; pip install em-bench[quantized], or give --dtype bfloat16"
        )
    if getattr(AutoConfig.from_pretrained(base_dir).get_text_config(), "num_experts", 0):
        raise UserError(
            f"--dtype {dtype}: would leave the experts, nearly all of this base, in bfloat16; give --dtype bfloat16 and --shard"
        )
    four_bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    how = BitsAndBytesConfig(**(four_bits if dtype == "nf4" else {"load_in_8bit": True}))
    # Quantised weights are made where they stay: a quantised model is not moved.
    return AutoModelForCausalLM.from_pretrained(base_dir, quantization_config=how, dtype=torch.bfloat16, device_map={"": device})


def base_for_training(base_dir: Path | str, dtype: str, options: Options, peers: Processes):
    """The frozen base as `options` want it. Raises UserError for what is not installed or does not go together."""
    if options.shard and peers.size > 1:
        if dtype in QUANTIZED:
            raise UserError(f"--dtype {dtype}: a quantised base is not spread over processes; add --replicate")
        from transformers.distributed import DistributedConfig

        check_fits(base_dir, dtype, peers.device, peers.size)

        model = AutoModelForCausalLM.from_pretrained(
            base_dir, distributed_config=DistributedConfig(fsdp_size=peers.size), **_how(dtype)
        ).requires_grad_(False)
    else:
        model = load_base(base_dir, dtype, peers.device)
    if options.liger:
        _liger(model)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def _liger(model) -> None:
    try:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance
    except ImportError:
        raise UserError("--liger: liger-kernel is not installed; pip install em-bench[liger], or leave --liger away") from None
    # Cross-entropy stays ours: it sees the answer tokens only.
    _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
