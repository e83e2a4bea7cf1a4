"""The adapters of an entry in one safetensors file: every tensor once, with the adapters of a base stacked along its first axis.

`BASE/TENSOR` has the shape (adapters, *shape); `__metadata__` holds for each base the list of [run id, step or null for the end],
in that order, and adapter_config.json, which they share. Each adapter's own file comes back byte for byte, and its hash is the run's.
"""

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from em_bench.errors import UserError
from em_bench.files import LARGEST_WHOLE, atomic_file, open_regular, parse_record, read_text
from em_bench.line import Identifier, one_line
from em_bench.records import Record
from em_bench.run_folder import CONFIG, RunFolder

FILE = "adapters.safetensors"
MAX_FILE = 32 << 20
MOST = 1_000  # adapters of a base
Key = tuple[str, int | None]  # run id and step; None is the end of training


class _Stack(Record):
    """What `__metadata__` says of a base."""

    adapters: list[tuple[Identifier, int | None]]
    config: str


def pack_adapters(out: Path, adapters: Iterable[tuple[RunFolder, int | None]]) -> None:
    """Write the adapters at these steps of these runs into `out`; no file where there are none.

    Raises UserError where those of one base differ in form.
    """
    import torch
    from safetensors.torch import load, save

    tensors: dict[str, dict[str, list[torch.Tensor]]] = {}
    keys: dict[str, list[Key]] = {}
    configs: dict[str, str] = {}
    for run, step in adapters:
        record, data = run.record(), run.weights(step).read_bytes()
        base, found, config = record.spec.base.name, load(data), read_text(run.adapter(step) / CONFIG)
        if _bytes(found) != data or (base in keys and (found.keys() != tensors[base].keys() or config != configs[base])):
            raise UserError(f"{run.weights(step)}: has another form than em-bench writes, or than {keys.get(base, ['?'])[0]}")
        keys.setdefault(base, []).append((record.run_id, step))
        configs[base] = config
        for name, tensor in found.items():
            tensors.setdefault(base, {}).setdefault(name, []).append(tensor)
    if not keys:
        return
    said = {base: json.dumps({"adapters": keys[base], "config": configs[base]}) for base in keys}
    stacked = {f"{base}/{name}": torch.stack(parts) for base in keys for name, parts in tensors[base].items()}
    with atomic_file(out / FILE, "wb") as f:
        f.write(save(stacked, metadata=said))


def _bytes(tensors: dict[str, Any]) -> bytes:
    """The file of one adapter, as training writes it."""
    from safetensors.torch import save

    return bytes(save(tensors, metadata={"format": "pt"}))


class PackedAdapters:
    """A file that `pack_adapters` wrote, or none, as hostile input. Every reader raises UserError."""

    def __init__(self, folder: Path):
        self.path = Path(folder) / FILE

    @cached_property
    def index(self) -> dict[Key, tuple[str, int]]:
        """(run id, step; None is the end of training) -> base, and place in its stack."""
        found: dict[Key, tuple[str, int]] = {}
        for base, stack in self._stacks.items():
            for place, key in enumerate(stack.adapters):
                if key in found:
                    raise UserError(f"{self.path}: {key[0]} at step {key[1]} stands twice; `em-bench submit run` writes it")
                found[key] = (base, place)
        return found

    @cached_property
    def _stacks(self) -> dict[str, _Stack]:
        if not self.path.exists():
            return {}
        try:
            with open_regular(self.path) as f:
                if f.seek(0, 2) > MAX_FILE:
                    raise UserError(f"{self.path}: over {MAX_FILE >> 20} MiB; leave adapters out")
            with safe_open(self.path, framework="pt") as f:
                said = f.metadata() or {}
                shapes = {name: f.get_slice(name).get_shape() for name in f.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as e:
            raise UserError(f"{self.path}: no safetensors file ({one_line(str(e), 200)})") from None
        stacks = {base: parse_record(text, _Stack, f"{self.path}: {one_line(base, 80)}") for base, text in said.items()}
        for name, shape in shapes.items():
            stack = stacks.get(name.partition("/")[0])
            if stack is None or not shape or shape[0] != len(stack.adapters) or not 0 < shape[0] <= MOST:
                raise UserError(f"{self.path}: {one_line(name, 120)}: is not the tensor of as many adapters as are named")
        if any(step is not None and not 0 <= step <= LARGEST_WHOLE for s in stacks.values() for _, step in s.adapters):
            raise UserError(f"{self.path}: a step is not one")
        return stacks

    def weights(self, run_id: str, step: int | None) -> bytes | None:
        """adapter_model.safetensors of one of them; None where it is not there."""
        if (run_id, step) not in self.index:
            return None
        base, place = self.index[run_id, step]
        with safe_open(self.path, framework="pt") as f:
            names = [n for n in f.keys() if n.partition("/")[0] == base]  # noqa: SIM118
            return _bytes({n.partition("/")[2]: f.get_slice(n)[place].contiguous() for n in names})

    def config(self, run_id: str, step: int | None) -> str:
        """adapter_config.json of one of them."""
        return self._stacks[self.index[run_id, step][0]].config
