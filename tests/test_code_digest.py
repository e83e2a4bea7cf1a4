"""The identity of code: every file that a result rests on counts, no other does, and what is edited after loading is not recorded."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import em_bench
from em_bench.code_digest import closure
from em_bench.errors import UserError
from em_bench.sweep.jobs import ENTRIES

PACKAGE = Path(em_bench.__file__).parent
RUN = ("em_bench.training.run",)
ALL = {RUN, *ENTRIES.values()}


@pytest.fixture
def copied(tmp_path):
    """code_digest.py of a copy of the package, which may be edited."""
    shutil.copytree(PACKAGE, tmp_path / "em_bench", ignore=shutil.ignore_patterns("__pycache__"))
    spec = importlib.util.spec_from_file_location("copied_code_digest", tmp_path / "em_bench" / "code_digest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tmp_path / "em_bench", module


def test_a_touch_of_any_file_of_the_closure_is_another_digest_and_of_no_other(copied):
    package, module = copied
    before = {entry: module.code_digest(*entry) for entry in ALL}
    for path in sorted(p for p in package.rglob("*") if p.is_file()):
        name, text = path.relative_to(package).as_posix(), path.read_bytes()
        path.write_bytes(text + b"\n# touched\n")
        module._LOADED[name] = path.read_bytes()  # as a process that is started now would load it
        module.code_digest.cache_clear()
        for entry in ALL:
            assert (module.code_digest(*entry) != before[entry]) == (name in module.closure(*entry)), (name, entry)
        path.write_bytes(text)
        module._LOADED[name] = text
    module.code_digest.cache_clear()
    assert before == {entry: module.code_digest(*entry) for entry in ALL}


def test_what_is_edited_after_loading_is_not_recorded(copied):
    package, module = copied
    before = module.code_digest(*RUN)
    with open(package / "training" / "loop.py", "a") as f:
        f.write("# edited\n")
    module.code_digest.cache_clear()
    assert module.code_digest(*RUN) == before
    with pytest.raises(module.UserError, match=r"em_bench/training/loop\.py: edited while this process was loading") as e:
        module.check_loaded()
    assert module.UserError is UserError and "\n" not in str(e.value)


@pytest.mark.slow
def test_the_closure_forgets_nothing_that_python_imports():
    entries = [m for entry in ALL for m in entry]
    told = "import sys; print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'em_bench'), sep='\\n')"
    imports = "".join(f"import {m}\n" for m in entries)
    out = subprocess.run([sys.executable, "-c", imports + told], capture_output=True, text=True, check=True).stdout
    loaded = {Path(line).relative_to(PACKAGE).as_posix() for line in out.splitlines()}
    assert len(loaded) > 80 and loaded <= set(closure(*entries))


def test_the_closure_is_not_the_house():
    trains, evaluates, reports = (set(closure(*ENTRIES[kind])) for kind in ("train", "evaluate", "report"))
    assert {"lora_linalg.py", "spectral.py", "training/loop.py", "optim/names.yaml"} <= set(closure(*RUN)) < trains
    assert {"sweep/evaluating.py", "spectral.py", "harness/lm_eval/likelihood.py", "scoring/outcomes.py"} <= evaluates
    assert "analysis/templates/preset.html.j2" in reports
    assert not [f for f in trains | evaluates | reports if f.startswith(("cli/", "board/", "sweep/engine/"))]
    assert not [f for f in trains if f.startswith(("harness/", "judging/", "analysis/"))]


def test_a_name_that_is_no_module():
    with pytest.raises(ValueError, match=r"em_bench\.trainer: no such module"):
        closure("em_bench.trainer")
