"""Optimisers by name: an importable class, or a name of pytorch_optimizer that was found to work."""

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.yaml_file import read_yaml

if TYPE_CHECKING:
    import torch

FOUND = Path(__file__).with_name("names.yaml")


@cache
def found() -> dict:
    """names.yaml: the names of pytorch_optimizer that work as they are (`plain`), with `MUON_GROUP`, and the refused ones."""
    return read_yaml(FOUND, dict)


def optimizer_names() -> tuple[str, ...]:
    """Every name without a dot that a rule may give."""
    return tuple(sorted(found()["plain"] + found()["muon_group"]))


def optimizer_class(name: str) -> "type[torch.optim.Optimizer]":
    """The class of a dotted path such as torch.optim.AdamW, or of a pytorch_optimizer name such as soap.

    Raises UserError with the reason where there is none, or where it cannot train an adapter from gradients alone.
    """
    if "." not in name:
        return _by_name(name)
    import torch

    module, _, attribute = name.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        known = [f"torch.optim.{n}" for n, c in vars(torch.optim).items() if isinstance(c, type) and n != "Optimizer"]
        raise unknown("optimiser", name, known, "another importable class") from None
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise UserError(f"{name}: is not a torch.optim.Optimizer; give the class of an optimiser")
    if module.startswith("pytorch_optimizer"):
        _refuse(attribute.lower(), name)
    closure = inspect.signature(cls.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UserError(f"{name}: its step needs a closure; choose an optimiser that steps on gradients alone")
    return cls


def check_known(name: str | None) -> None:
    """Raise UserError for what is no optimiser's name, without loading more than a dotted name needs."""
    if name is None:
        return
    if "." in name:
        optimizer_class(name)
    elif name not in optimizer_names():
        _refuse(name, name)
        raise unknown("optimiser", name, optimizer_names(), "a class such as torch.optim.AdamW")


def group_options(name: str) -> dict:
    """What the parameter groups of this optimiser must say beside their parameters."""
    from em_bench.optim.compatibility import MUON_GROUP

    return MUON_GROUP if name.rpartition(".")[2].lower() in found()["muon_group"] and "." not in name else {}


def check_works(name: str, cls: "type[torch.optim.Optimizer]", kwargs: dict) -> None:
    """Raise UserError, with the reason, for a class that fails a trial on a small adapter with these arguments."""
    from em_bench.optim.compatibility import trial

    make: Callable[..., torch.optim.Optimizer] = cls  # the base class says nothing of its heirs' arguments
    key = (name, cls, repr(sorted(kwargs.items())))
    if key not in _tried:
        _tried[key] = trial(lambda params: make([{"params": params, **group_options(name)}], lr=1e-3, **kwargs))
    if _tried[key] is not None:
        raise UserError(f"{name}: {_tried[key]}; choose another optimiser or other arguments")


_tried: dict[tuple, str | None] = {}


def _by_name(name: str) -> "type[torch.optim.Optimizer]":
    _refuse(name.lower(), name)
    if name.lower() not in optimizer_names():
        raise unknown("optimiser", name, optimizer_names(), "an importable class such as torch.optim.AdamW")
    import pytorch_optimizer

    return pytorch_optimizer.load_optimizer(name.lower())


def _refuse(key: str, name: str) -> None:
    if key in found()["refused"]:
        raise UserError(f"{name}: {found()['refused'][key]}; choose another optimiser")
