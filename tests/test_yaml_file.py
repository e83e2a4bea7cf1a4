"""Reading YAML and JSON lines: what a person did not mean is refused with file and line, and Windows' marks are no error."""

import ast
from pathlib import Path
from typing import Any

import pytest

import em_bench
from em_bench.data.conversations import read_rows
from em_bench.errors import UserError
from em_bench.files import read_jsonl, read_record
from em_bench.records import Record
from em_bench.yaml_file import Loader, read_yaml

PACKAGE = Path(em_bench.__file__).parent


class Row(Record):
    name: str
    rate: float = 1.0


def laughs(begin: str, end: str) -> str:
    """Nine lines, each ten times the one before."""
    return "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {begin}{', '.join([f'*a{i - 1}'] * 10)}{end}\n" for i in range(1, 9))


@pytest.fixture
def written(tmp_path):
    def write(data: str | bytes) -> Path:
        path = tmp_path / "given.yaml"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


@pytest.mark.parametrize("text", ["1e-8", "1E-8", "1.e-8", "+1e-8", "0.1e-7", ".1e-7", "1.0e-8"])
def test_a_rate_is_a_number_in_each_way_to_write_it(written, text):
    assert read_yaml(written(f"a: {text}"), dict) == {"a": 1e-8}
    assert read_yaml(written(f"[{text}, -{text.lstrip('+')}]"), list) == [1e-8, -1e-8]


@pytest.mark.parametrize("text", ["1e", "e8", "1e-8x", "2e7f", "a1e5", "'1e-8'"])
def test_what_only_looks_like_a_number_stays_text(written, text):
    assert read_yaml(written(f"a: {text}"), dict) == {"a": text.strip("'")}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("name: x\nrate: [1,\nname: y", ":3: not YAML: "),
        ("name: x\n\tname: y", ":2: not YAML: "),
        ("name: x\nrate: 1\nname: y\n", ":3: not YAML: the key 'name' stands twice"),
        ("name: x\nmore: {a: 1, a: 2}\n", ":2: not YAML: the key 'a' stands twice"),
        ("name: x\n\x00", ":2: not YAML: special characters are not allowed"),
        ("name: !!python/object/apply:os.getcwd []", ":1: not YAML: could not determine a constructor"),
        (
            "name: x\nrate: fast\nmore: 1",
            ": rate: Input should be a valid number, unable to parse string as a number (and 1 more)",
        ),
        ("name: 2026-13-01", ": a number or date that is none"),
        ("[" * 5000, ":1: not YAML: nested too deeply"),
        ("- " * 3000, ": nested too deeply"),
        ("[" + "a," * 100_000 + "]", ":1: not YAML: over 50,000 tokens"),
        ("- a\n" * 100_000, ":25000: not YAML: over 50,000 tokens"),  # each line is two
        ("", ": Input should be a valid dictionary"),
        (b"name: \xff", ": not UTF-8 text at byte 6; save it as UTF-8"),
        ("name: " + "x" * 5_000_000, ": over 512 KiB"),
        (laughs("[", "]"), ":1: not YAML: aliases that stand for too much"),
        (laughs("{<<: [", "]}"), ":1: not YAML: aliases that stand for too much"),
        ("name: &a [*a]", ":1: not YAML: an alias that names what it stands in"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(written, data, says):
    path = written(data)
    with pytest.raises(UserError) as e:
        read_yaml(path, Row)
    assert str(e.value).startswith(f"{path}{says}") and "\n" not in str(e.value)


def test_open_brackets_cost_nothing(written):
    """The scanner looks at each open one for each token: told by the steps that it takes, not by a clock."""
    path, steps = written("[" * 5000 + "a: 1\n" * 5000), []

    class Counted(Loader):
        def stale_possible_simple_keys(self) -> None:
            steps.append(len(self.possible_simple_keys))
            super().stale_possible_simple_keys()

    with pytest.raises(UserError, match=":1: not YAML: nested too deeply; write fewer levels"):
        read_yaml(path, Any, loader=Counted)
    assert sum(steps) < 100_000


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="absent.yaml: no such file"):
        read_yaml(tmp_path / "absent.yaml", Row)
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path, Row)


def test_a_merged_mapping_may_say_a_key_again(written):
    assert read_yaml(written("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}"), dict)["b"] == {"x": 3, "y": 2}


def test_a_byte_order_mark_is_no_part_of_a_text(written):
    mark = b"\xef\xbb\xbf"
    assert read_yaml(written(mark + b"name: x"), Row) == Row(name="x")
    assert read_record(written(mark + b'{"name": "x"}'), Row) == Row(name="x")
    assert read_jsonl(written(mark + b'{"name": "x"}\n{"name": "y"}\n'), Row, Row) == (Row(name="x"), [Row(name="y")])
    row = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\r\n'
    assert len(read_rows(written(mark + row + row))) == 2


def test_yaml_is_read_here_alone():
    """A second reader is a second set of rules. `trial` writes YAML; `intake` makes this reader stricter.

    The organism's own file is read where its bytes name the bases that are built: an edit there would build all of them anew.
    """
    for path in PACKAGE.rglob("*.py"):
        called = {n.attr for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Attribute)}
        if path.relative_to(PACKAGE).as_posix() not in ("yaml_file.py", "organism/language.py"):
            assert not called & {"safe_load", "full_load", "unsafe_load", "safe_load_all"}, path
