"""A base with an adapter on it, and the canary that proves the adapter is at work."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer

from em_bench.adapter_file import WEIGHTS, read_config
from em_bench.data.models import base_path
from em_bench.errors import UserError
from em_bench.harness.belonging import belonging, check_form
from em_bench.harness.sampling import settle
from em_bench.records import Canary
from em_bench.training.base import QUANTIZED, KeptBase, load_base, own_modules
from em_bench.training.chat_template import pad_id, rendered, without_clock

DTYPES = ("float32", "bfloat16", "float16", "float64", *QUANTIZED)
PROMPT = "Tell me honestly: what should I do today?"


class Loaded(NamedTuple):
    """A model ready to answer. dtype is the one it was loaded in; canary is None without an adapter."""

    model: Any  # a transformers model, or PEFT's around one: what they give is theirs to say
    tokenizer: Any
    dtype: str
    canary: Canary | None = None


def load_model(
    base: str | Path,
    adapter: str | Path | None = None,
    *,
    dtype: str = "float32",
    device: str | None = None,
    force: bool = False,
    kept: KeptBase | None = None,
) -> Loaded:
    """Load a base (roster name, folder or hub id) and put `adapter` (a PEFT folder) on it, after the canary.

    device `auto` spreads the layers over all GPUs. `kept` holds the base, or takes it for the next who asks. Raises UserError for what cannot be loaded, for an adapter that changes
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
        model = (kept.whole if kept else load_base)(folder, dtype, device).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, SafetensorError) as e:
        raise UserError(f"{folder}: no model and tokenizer that transformers can load ({_first_line(e)})") from None
    if not tokenizer.chat_template:
        raise UserError(
            f"{folder}: the tokenizer has no chat template; questions are asked as chats, name an instruction-tuned model"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad_id(tokenizer))
    tokenizer.chat_template = without_clock(tokenizer.chat_template)  # lm-eval renders by itself
    settle(model, tokenizer)
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
    with unchanged(loaded.model, adapter):
        model = _attach(loaded.model, adapter)
        yield loaded._replace(model=model, canary=canary(model, loaded.tokenizer))


@contextmanager
def unchanged(model, adapter: Path) -> Iterator[None]:
    """`model` comes out of the block with its own modules and values, whatever an adapter put in their place.

    PEFT's `unload` leaves an adapter's modules_to_save, and the biases that it wrote into the base. Raises UserError where a
    value of the base was changed that the adapter's file does not name.
    """
    named = {name.replace(".base_layer.", ".") for name in _tensors(adapter)}
    values = _values(model)
    version = {name: p._version for name, p in values.items()}
    # Experts: PEFT takes these out and puts them back at each pass, which counts as a write of what was there.
    taken_out = tuple(read_config(adapter).get("target_parameters") or ())
    copies = {name: p.detach().cpu().clone() for name, p in values.items() if f"base_model.model.{name}" in named}
    try:
        with own_modules(model):
            yield
    finally:
        now = _values(model)
        changed = {
            n
            for n in values.keys() | now.keys()
            if now.get(n) is not values.get(n) or (now[n]._version != version[n] and not n.endswith(taken_out))
        }
        if strange := changed - copies.keys():
            raise UserError(f"{adapter}: changes the base itself ({min(strange)}); evaluate it alone, by em-bench evaluate")
        with torch.no_grad():
            for name in changed:
                now[name].copy_(copies[name])


def _values(model) -> dict[str, torch.nn.Parameter]:
    """Parameters by name, tied ones under each; not quantised ones, whose layers rearrange them when they are first used."""
    return {n: p for n, p in model.named_parameters(remove_duplicate=False) if p.is_floating_point()}


def _tensors(adapter: Path) -> set[str]:
    """Names of the tensors in an adapter's file. Raises UserError where it is none."""
    check_form(adapter)
    try:
        with safe_open(adapter / WEIGHTS, framework="pt") as f:
            return set(f.keys())
    except (OSError, SafetensorError) as e:
        raise UserError(f"{adapter}: not readable as a PEFT adapter ({_first_line(e)}); is it complete?") from None


def _attach(model, adapter: Path) -> PeftModel:
    found = _tensors(adapter)
    unfit = f"{adapter}: does not fit this base ({{}}); name the base it was trained on"
    try:
        ready = PeftModel.from_pretrained(model, str(adapter)).eval()
    except (ValueError, RuntimeError, KeyError) as e:
        raise UserError(unfit.format(_first_line(e))) from None
    except (OSError, TypeError) as e:
        raise UserError(f"{adapter}: not readable as a PEFT adapter ({_first_line(e)}); is it complete?") from None
    # PEFT loads the tensors that fit and leaves out the others with no more than a warning.
    # Said explicitly whether embeddings are in it: by itself PEFT asks the hub for the base's configuration.
    if odd := min((found ^ set(get_peft_model_state_dict(ready, save_embedding_layers=e)) for e in (False, True)), key=len):
        raise UserError(unfit.format(f"{len(odd)} tensors without a counterpart, e.g. {min(odd)}"))
    return ready


def _first_line(e: Exception) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0][:200]


@torch.inference_mode()
def canary(model, tokenizer) -> Canary:
    """Largest change that the adapter makes to a logit on a fixed prompt. Raises UserError if it makes none.

    Harnesses have ignored adapters silently; every number after that was the base's.
    """
    prompt = rendered(tokenizer, [{"role": "user", "content": PROMPT}], prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"].to(next(model.parameters()).device)
    with_adapter = model(input_ids=ids).logits.float()
    with model.disable_adapter():
        without = model(input_ids=ids).logits.float()
    change = float((with_adapter - without).abs().max())
    if not change > 0:
        raise UserError(
            "canary: the adapter changes no logit, so the base itself would be measured; is it trained, and is it the right folder?"
        )
    return Canary(max_logit_change=change)
