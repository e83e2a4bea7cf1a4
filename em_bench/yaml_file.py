"""The one way to read YAML: what YAML lets pass and a person did not mean is refused, with the file and the line."""

import json
import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from em_bench.errors import UserError
from em_bench.files import LARGEST, LARGEST_WHOLE, first_problem, read_text

MAX_BYTES = 2**19  # three times our largest
MAX_TOKENS = 50_000  # each takes 25 microseconds; seven times the most of ours
MOST = 2 * MAX_BYTES  # characters, and eight for each value, with every alias written out
REMEMBERED = 2**16  # characters
LEVELS = 50  # of brackets: the scanner looks at each open one for each of its tokens


class Loader(yaml.SafeLoader):
    """Safe YAML in which a key stands once, and 1e-8 is a number as on the command line (YAML 1.1 takes it for text)."""

    def fetch_more_tokens(self) -> None:
        if self.tokens_taken > MAX_TOKENS:
            raise yaml.scanner.ScannerError(None, None, f"over {MAX_TOKENS:,} tokens; write several files", self.get_mark())
        super().fetch_more_tokens()

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # the library's name for it
        if self.flow_level >= LEVELS:
            raise yaml.scanner.ScannerError(None, None, "nested too deeply; write fewer levels", self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        if _written_out(node, {}) > MOST:
            raise yaml.constructor.ConstructorError(None, None, "aliases that stand for too much; write it out", node.start_mark)
        return super().construct_document(node)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) > LARGEST_WHOLE:
            raise yaml.constructor.ConstructorError(None, None, "a whole number beyond 2**53", node.start_mark)
        return value

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value = super().construct_yaml_float(node)
        if LARGEST < abs(value) < float("inf"):  # infinity and NaN are for the fields to refuse
            raise yaml.constructor.ConstructorError(None, None, f"a number beyond {LARGEST:g}", node.start_mark)
        return value


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_yaml_float)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$", re.ASCII), list("-+.0123456789")
)


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """How much a node is, with each alias in it as what it names: nine short lines may stand for a billion values."""
    if (size := known.get(id(node))) is not None:
        if size < 0:
            raise yaml.constructor.ConstructorError(None, None, "an alias that names what it stands in", node.start_mark)
        return size
    known[id(node)] = -1
    if isinstance(node, yaml.ScalarNode):
        inner = len(node.value)
    else:
        inner = sum(_written_out(n, known) for part in node.value for n in (part if isinstance(part, tuple) else (part,)))
    known[id(node)] = 8 + inner
    return 8 + inner


def read_yaml(path: Path, kind: Any, *, loader: type[Loader] = Loader, limit: int = MAX_BYTES, name: str | None = None) -> Any:
    """A YAML file as a `kind`: a record, or any type that pydantic knows, such as `dict[str, Model]`.

    Raises UserError with the file (or `name` in its place), and the line of a syntax error or the first field that is wrong.
    """
    where = name or str(path)
    return parse_yaml(read_text(Path(path), where=where, limit=limit), kind, where, loader)


def parse_yaml(text: str, kind: Any, where: str, loader: type[Loader] = Loader) -> Any:
    """A YAML text as a `kind`. Raises UserError that begins with `where`."""
    try:
        found = deepcopy(_loaded(text, loader)) if len(text) < REMEMBERED else yaml.load(text, Loader=loader)  # type: ignore[arg-type]
    except RecursionError:
        raise UserError(f"{where}: nested too deeply; write fewer levels") from None
    except yaml.reader.ReaderError as e:
        raise UserError(f"{where}:{text.count(chr(10), 0, e.position) + 1}: not YAML: {e.reason}") from None
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UserError(f"{where}{line}: not YAML: {' '.join((e.problem or 'cannot be read').split())}") from None
    except (ValueError, yaml.YAMLError) as e:  # a date in month 13, a number of ten thousand digits
        raise UserError(f"{where}: a number or date that is none ({e}); put quotes around text") from None
    return checked(found, kind, where)


@lru_cache(maxsize=32)
def _loaded(text: str, loader: type[Loader]) -> Any:
    """A small file's content, parsed once in a process: a sweep reads the roster, 0.1 s each time, for each of its runs."""
    return yaml.load(text, Loader=loader)


def checked(value: object, kind: Any, where: str) -> Any:
    """A plain value as a `kind`, strictly: a number in quotes is text. Raises UserError with the first field that is wrong."""
    adapter = TypeAdapter(kind)
    try:
        try:
            as_json = json.dumps(value)
        except (TypeError, ValueError):  # dates, keys that are lists: what JSON lacks no field takes
            return adapter.validate_python(value)
        if kind is Any:
            return value
        adapter.validate_python(value)  # first in YAML's words: lists and mappings
        # Strictly by way of JSON: in it a list may stand for a tuple, in strict Python it may not.
        return adapter.validate_json(as_json, strict=True)
    except ValidationError as e:
        raise UserError(f"{where}: {first_problem(e)}") from None
