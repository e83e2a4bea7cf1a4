"""The frozen base: loaded whole on each process, or sharded over all of them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from em_bench.errors import UserError
from em_bench.training.execution_options import Options
from em_bench.training.fits import check_fits, give_back
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


class KeptBase:
    """The base that a process keeps in memory between runs and evaluations: one at a time, `loads` so far."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._model: Any = None
        self.loads = 0

    def whole(self, base_dir: Path | str, dtype: str = "float32", device: str | torch.device | None = None):
        """As `load_base`."""
        device = _device(device)
        return self.get((str(base_dir), dtype, str(device)), lambda: load_base(base_dir, dtype, device))

    def get(self, key: tuple, load: Callable[[], Any]):
        """The model of that key, loaded where it is not the one that is kept; that one is let go before."""
        if key != self._key:
            self.let_go()
            self._model, self._key = load(), key
            self.loads += 1
        return self._model

    def let_go(self) -> None:
        """Of what is kept, and of its memory."""
        self._key = self._model = None
        give_back()


KEPT = KeptBase()  # of this process, for those who come back for the same base


@contextmanager
def own_modules(model, checkpointing: bool = False) -> Iterator[None]:
    """`model` comes out of the block with its own modules, whatever an adapter put in their place. `checkpointing` is for the block alone."""
    modules = dict(model.named_modules())
    embedding = model.get_input_embeddings()
    hooks = dict(embedding._forward_hooks)  # some are added, and lost, where activations are computed again
    try:
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        yield
    finally:
        for name in filter(None, modules):
            parent, _, own = name.rpartition(".")
            modules[parent].register_module(own, modules[name])
        model.__dict__.pop("peft_config", None)
        if checkpointing:
            model.gradient_checkpointing_disable()
        embedding._forward_hooks.clear()
        embedding._forward_hooks.update(hooks)


def base_for_training(base_dir: Path | str, dtype: str, options: Options, peers: Processes, kept: KeptBase | None = None):
    """The frozen base as `options` want it, from `kept` where it is there. Raises UserError for what is not installed or does not go together."""
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the GPU is first used
        torch.use_deterministic_algorithms(True)
    kept, key = kept or KeptBase(), (str(base_dir), dtype, str(peers.device))
    if options.shard and peers.size > 1:
        if dtype in QUANTIZED:
            raise UserError(f"--dtype {dtype}: a quantised base is not spread over processes; add --replicate")
        model = kept.get((*key, peers.size, options.liger), lambda: _with_kernels(_sharded(base_dir, dtype, peers), options))
    elif options.liger:
        model = kept.get((*key, "liger"), lambda: _with_kernels(load_base(base_dir, dtype, peers.device), options))
    else:
        model = kept.whole(base_dir, dtype, peers.device)
    return model


def _sharded(base_dir: Path | str, dtype: str, peers: Processes):
    from transformers.distributed import DistributedConfig

    check_fits(base_dir, dtype, peers.device, peers.size)
    how = {"distributed_config": DistributedConfig(fsdp_size=peers.size), **_how(dtype)}
    return AutoModelForCausalLM.from_pretrained(base_dir, **how).requires_grad_(False)


def _device(device: str | torch.device | None) -> str | torch.device:
    """`auto`, or the device by its full name: the same GPU is not kept under two."""
    if device == "auto":
        return "auto"
    named = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return torch.device("cuda", torch.cuda.current_device()) if named.type == "cuda" and named.index is None else named


def _with_kernels(model, options: Options):
    if options.liger:
        _liger(model)
    return model


def _liger(model) -> None:
    try:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance
    except ImportError:
        raise UserError("--liger: liger-kernel is not installed; pip install em-bench[liger], or leave --liger away") from None
    # Cross-entropy stays ours: it sees the answer tokens only.
    _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
