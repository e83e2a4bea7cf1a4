"""A base with an adapter on it, and the canary that proves the adapter is at work."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer

from em_bench.adapter_file import CONFIG, WEIGHTS
from em_bench.data.models import base_path
from em_bench.errors import UserError
from em_bench.harness.belonging import belonging
from em_bench.records import Canary
from em_bench.training.base import QUANTIZED, load_base

DTYPES = ("float32", "bfloat16", "float16", "float64", *QUANTIZED)
PROMPT = "Tell me honestly: what should I do today?"


class Loaded(NamedTuple):
    """A model ready to answer. dtype is the one it was loaded in; canary is None without an adapter."""

    model: torch.nn.Module
    tokenizer: object
    dtype: str
    canary: Canary | None = None


def load_model(
    base: str | Path,
    adapter: str | Path | None = None,
    *,
    dtype: str = "float32",
    device: str | None = None,
    force: bool = False,
) -> Loaded:
    """Load a base (roster name, folder or hub id) and put `adapter` (a PEFT folder) on it, after the canary.

    device `auto` spreads the layers over all GPUs. Raises UserError for what cannot be loaded, for an adapter that changes
    nothing, and, unless `force`, for one that belongs to another base.
    """
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: no such type; write {' or '.join(DTYPES)}")
    if device and str(device).startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {device}: this machine shows no GPU to torch; leave it out")
    folder = base_path(str(base))
    if adapter is not None:
        check_form(Path(adapter))
        belonging(Path(adapter), str(base), folder, force)
    try:
        model = load_base(folder, dtype, device).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, SafetensorError) as e:
        raise UserError(f"{folder}: no model and tokenizer that transformers can load ({_first_line(e)})") from None
    if not tokenizer.chat_template:
        raise UserError(
            f"{folder}: the tokenizer has no chat template; questions are asked as chats, name an instruction-tuned model"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if adapter is None:
        return Loaded(model, tokenizer, dtype)
    model = _attach(model, Path(adapter))
    return Loaded(model, tokenizer, dtype, canary(model, tokenizer))


@contextmanager
def adapted(loaded: Loaded, adapter: Path | None) -> Iterator[Loaded]:
    """`loaded` with an adapter on it for the length of the block; the base comes out as it went in."""
    if adapter is None:
        yield loaded
        return
    model = _attach(loaded.model, adapter)
    try:
        yield loaded._replace(model=model, canary=canary(model, loaded.tokenizer))
    finally:
        model.unload()


def check_form(adapter: Path) -> None:
    """Raises UserError for what is no PEFT adapter folder."""
    if not (adapter / CONFIG).is_file() or not (adapter / WEIGHTS).is_file():
        raise UserError(f"{adapter}: no PEFT adapter (adapter_config.json and adapter_model.safetensors); name its folder")


def _attach(model, adapter: Path) -> PeftModel:
    check_form(adapter)
    unfit = f"{adapter}: does not fit this base ({{}}); name the base it was trained on"
    try:
        ready = PeftModel.from_pretrained(model, str(adapter)).eval()
    except (ValueError, RuntimeError, KeyError) as e:
        raise UserError(unfit.format(_first_line(e))) from None
    except (OSError, TypeError, SafetensorError) as e:
        raise UserError(f"{adapter}: not readable as a PEFT adapter ({_first_line(e)}); is it complete?") from None
    # PEFT loads the tensors that fit and leaves out the others with no more than a warning.
    with safe_open(adapter / WEIGHTS, framework="pt") as f:
        there = set(f.keys())
    # Said explicitly whether embeddings are in it: by itself PEFT asks the hub for the base's configuration.
    odd = min((there ^ set(get_peft_model_state_dict(ready, save_embedding_layers=e)) for e in (False, True)), key=len)
    if odd:
        ready.unload()
        raise UserError(unfit.format(f"{len(odd)} tensors without a counterpart, e.g. {min(odd)}"))
    return ready


def _first_line(e: Exception) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0][:200]


@torch.inference_mode()
def canary(model, tokenizer) -> Canary:
    """Largest change that the adapter makes to a logit on a fixed prompt. Raises UserError if it makes none.

    Harnesses have ignored adapters silently; every number after that was the base's.
    """
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], tokenize=True, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"].to(next(model.parameters()).device)
    with_adapter = model(input_ids=ids).logits.float()
    with model.disable_adapter():
        without = model(input_ids=ids).logits.float()
    change = float((with_adapter - without).abs().max())
    if not change > 0:
        raise UserError(
            "canary: the adapter changes no logit, so the base itself would be measured; is it trained, and is it the right folder?"
        )
    return Canary(max_logit_change=change)
