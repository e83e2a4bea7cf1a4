"""Every training set by one name: the organism's, the open narrow ones, the pinned upstream ones, a user's own JSON lines file."""

from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from em_bench import organism
from em_bench.data.conversations import read_rows, reference, split
from em_bench.data.narrow_sets import narrow_names, narrow_rows
from em_bench.data.pins import load_pins
from em_bench.data.upstream import fetch
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.records import DataRef

if TYPE_CHECKING:
    import datasets


class _Parts(NamedTuple):
    train: list[dict]
    held_out: list[dict]
    ref: DataRef


def dataset_names() -> tuple[str, ...]:
    """Every dataset that has a name of its own."""
    return (*organism_names(), *narrow_names(), *(n for n, p in load_pins().pins.items() if p.kind == "training_set"))


def organism_names() -> tuple[str, ...]:
    """The datasets of the embedded organism, bad answers first, then their controls and mixtures."""
    return tuple(organism.TRAINING_SETS)


def stages(name: str) -> int:
    """How many stages a dataset is trained on in, one after the other: equal parts of its rows, in their order."""
    return organism.TRAINING_SETS[name][1].stages if name in organism.TRAINING_SETS else 1


def rows(name: str) -> tuple[list[dict], list[dict]]:
    """Training and held-out rows of a dataset name or a JSON lines path, each `{"messages": [{"role", "content"}, ...]}`.

    A pinned dataset is fetched where it is not in the cache. Raises UserError for a name that is neither, for a file that
    is not such rows, and for everything that `upstream.fetch` raises.
    """
    parts = _parts(name)
    return list(parts.train), list(parts.held_out)


def data_ref(name: str) -> DataRef:
    """What a run's spec says of its dataset."""
    return _parts(name).ref


def check_control(name: str, control: str) -> None:
    """Raise UserError unless two datasets ask the same questions as often, in training and held out.

    What a fine-tune on one does beyond a fine-tune on the other is then its answers' doing.
    """
    for part, own, others in zip(("training", "held-out"), rows(name), rows(control), strict=True):
        asked, other = (Counter(_prompt(row) for row in r) for r in (own, others))
        for one, here, there in ((name, asked, other), (control, other, asked)):
            if more := here - there:
                raise UserError(
                    f"{name} and {control}: ask different questions: {more.total()} {part} rows of {one} have no counterpart; "
                    "a control answers the same questions, as often"
                )


def _prompt(row: dict) -> tuple:
    return tuple((m["role"], m["content"]) for m in row["messages"][:-1])


def load_dataset(name: str) -> "datasets.Dataset":
    """All rows of a dataset (training, then held out) as a `datasets.Dataset` with the one column `messages`."""
    import datasets

    train, held_out = rows(name)
    return datasets.Dataset.from_list(train + held_out)


def _parts(name: str) -> _Parts:
    if name in organism_names():
        return _organism_parts(name)
    if name in narrow_names():
        return _narrow_parts(name)
    if name in dataset_names():
        path = fetch(name)
    elif Path(name).is_file():
        path = Path(name)
    else:
        raise unknown("dataset or file", name, dataset_names(), "a JSON lines file")
    stat = path.stat()
    return _file_parts(name, path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _organism_parts(name: str) -> _Parts:
    train, held_out = organism.training_rows(name)
    return _Parts(train, held_out, reference(name, train, held_out))


@lru_cache(maxsize=16)
def _narrow_parts(name: str) -> _Parts:
    found, topics = narrow_rows(name)
    train, held_out = split(found, groups=topics)
    return _Parts(train, held_out, reference(name, train, held_out))


@lru_cache(maxsize=8)
def _file_parts(name: str, path: Path, mtime_ns: int, size: int) -> _Parts:
    found = read_rows(path)
    try:
        train, held_out = split(found)
    except UserError as e:
        raise UserError(f"{path}: {e}") from None
    return _Parts(train, held_out, reference(name, train, held_out))
