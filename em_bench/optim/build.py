"""From a recipe's rules to optimisers: each parameter goes to the first rule whose pattern occurs in its name."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import torch

from em_bench.errors import UserError
from em_bench.optim.muon import Muon
from em_bench.optim.names import check_works, group_options, optimizer_class
from em_bench.records import ParamRule


class RecipeOptimizer:
    """The optimisers of a recipe behind the interface of one."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]):
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict]:
        """All groups; a schedule sets their `lr`."""
        return [g for o in self.optimizers for g in o.param_groups]

    def step(self) -> None:
        """One update of every parameter."""
        for o in self.optimizers:
            o.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for o in self.optimizers:
            o.zero_grad(set_to_none=True)

    def state_dict(self) -> dict:
        """State of all optimisers."""
        return {"optimizers": [o.state_dict() for o in self.optimizers]}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` gave."""
        for o, s in zip(self.optimizers, state["optimizers"], strict=True):
            o.load_state_dict(s)

    def train(self) -> None:
        """Before steps: schedule-free optimisers keep other weights for training than for evaluation."""
        for o in self.optimizers:
            if callable(train := getattr(o, "train", None)):
                train()

    def eval(self) -> None:
        """Before evaluating or saving; nothing for ordinary optimisers."""
        for o in self.optimizers:
            if callable(evaluate := getattr(o, "eval", None)):
                evaluate()


def build_optimizer(
    rules: Iterable[ParamRule],
    named_parameters: Iterable[tuple[str, torch.nn.Parameter]],
    learning_rate: float,
    experts: Mapping[str, int] = MappingProxyType({}),
) -> RecipeOptimizer:
    """The optimisers of `rules` over the named parameters; `experts` says how many experts' factors a parameter holds.

    Raises UserError for a parameter that no rule matches, and
    for a class that cannot be used (see `em_bench.optim.names`).
    """
    rules = list(rules)
    taken: list[list[tuple[str, torch.nn.Parameter]]] = [[] for _ in rules]
    for name, p in named_parameters:
        index = next((i for i, rule in enumerate(rules) if re.search(rule.pattern, name)), None)
        if index is None:
            raise UserError(f"optimiser rules: none matches the parameter {name}; end the list with the pattern .*")
        taken[index].append((name, p))
    optimizers = []
    for rule, params in zip(rules, taken, strict=True):
        if params:
            kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in rule.kwargs.items()}
            cls = optimizer_class(rule.optimizer)
            make: Callable[..., torch.optim.Optimizer] = cls
            try:
                optimizers.append(make(_groups(rule.optimizer, cls, params, experts), lr=learning_rate, **kwargs))
            except (TypeError, ValueError) as e:
                raise UserError(f"{rule.optimizer}: does not take these arguments ({e}); see its documentation") from None
            check_works(rule.optimizer, cls, kwargs)
    return RecipeOptimizer(optimizers)


def _groups(name: str, cls: type, params: list[tuple[str, torch.nn.Parameter]], experts: Mapping[str, int]) -> list[dict]:
    """Parameter groups. Our Muon is told which matrices hold many experts; others of its kind would mix them."""
    kinds: dict[tuple[int, str | None], list[torch.nn.Parameter]] = defaultdict(list)
    for parameter, p in params:
        side = "A" if ".lora_A." in parameter else "B"
        kinds[(experts[parameter], side) if experts.get(parameter, 1) > 1 else (1, None)].append(p)
    if cls is Muon:
        return [{"params": group, "experts": e, "side": side} for (e, side), group in kinds.items()]
    if len(kinds) > 1 and "muon" in cls.__name__.lower():
        raise UserError(f"{name}: would orthogonalise all experts of a layer as one matrix; use em_bench.optim.muon.Muon")
    return [{"params": [p for _, p in params], **group_options(name)}]
