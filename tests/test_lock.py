"""What `make install` installs is locked by hash: all that pyproject.toml asks for, one version each, and nothing beside it."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
FILES = sorted((ROOT / "requirements").glob("*.lock"))
EXTRAS = re.search(r"^EXTRAS := (.*)$", MAKEFILE, re.MULTILINE)[1].split()


def entries(path: Path) -> dict[str, Requirement]:
    """Name -> the requirement, of a lock whose every entry has its hashes."""
    text = re.sub(r"\\\n\s*", "", "".join(line for line in path.open(encoding="utf-8") if not line.startswith("#")))
    found = {}
    for line in text.splitlines():
        asked, *hashes = re.split(r"\s*--hash=", line)
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", h) for h in hashes), line[:100]
        one = Requirement(asked)
        assert re.fullmatch(r"==[^*,]+", str(one.specifier)) and not one.url and not one.extras, line[:100]
        assert canonicalize_name(one.name) not in found, line[:100]
        found[canonicalize_name(one.name)] = one
    return found


LOCKS = {p.stem: entries(p) for p in FILES}
RESOLVED = ("build", "environment", "torch", "quantized")
LOCKED = {name: one for stem in RESOLVED for name, one in LOCKS[stem].items()}


def asked(*extras: str) -> list[Requirement]:
    """What these extras bring, with what is always brought; an extra of our own stands for what it brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found = [Requirement(r) for r in project["dependencies"]]
    for one in (Requirement(r) for extra in extras for r in project["optional-dependencies"][extra]):
        found += asked(*one.extras) if one.name == project["name"] else [one]
    return found


ASKED = [*{str(r): r for r in asked(*EXTRAS, "quantized")}.values()]


def version(one: Requirement) -> str:
    return str(one.specifier).removeprefix("==")


def test_one_version_of_each_and_no_address():
    assert {p.stem for p in FILES} == {*RESOLVED, "torch-cpu", "validators", "site"}
    assert sum(map(len, (LOCKS[s] for s in RESOLVED))) == len(LOCKED)
    assert not any("://" in p.read_text("utf-8") or "--index" in p.read_text("utf-8") for p in FILES)
    (cpu,) = LOCKS["torch-cpu"].values()
    assert (cpu.name, version(cpu)) == ("torch", version(LOCKED["torch"]) + "+cpu")


@pytest.mark.parametrize("one", sorted(ASKED, key=str), ids=str)
def test_what_the_project_asks_for_is_locked(one):
    assert one.specifier.contains(version(LOCKED[canonicalize_name(one.name)]))


def test_what_that_asks_for_is_locked_too():
    """By what the packages that are installed here say they need."""
    ahead, seen = [(r, "") for r in ASKED], set()
    while ahead:
        one, extra = ahead.pop()
        name = canonicalize_name(one.name)
        if (one.marker and not one.marker.evaluate({"extra": extra})) or (name, *one.extras) in seen:
            continue
        seen.add((name, *one.extras))
        assert name in LOCKED, f"{name}: make lock"
        try:
            here = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # bitsandbytes lies beside the environment
        assert here.version.removesuffix("+cpu") == version(LOCKED[name]), f"{name}: make install"
        for needed in map(Requirement, here.requires or ()):
            ahead += [(needed, e) for e in ("", *one.extras)]
    assert len(seen) > 150


def test_constraints_are_the_versions_of_the_lock():
    said = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert sorted(map(str, map(Requirement, said))) == sorted(map(str, LOCKED.values()))


def test_the_install_takes_nothing_without_its_hash():
    recipe = re.search(r"^\$\(STAMP\):.*\n((?:[\t#].*\n)+)", MAKEFILE, re.MULTILINE)[1]
    hashed = re.search(r"^HASHED := (.*)$", MAKEFILE, re.MULTILINE)[1]
    assert hashed.endswith("pip install --require-hashes --no-deps --no-build-isolation")
    other = [line.strip() for line in recipe.splitlines() if "pip install" in line]
    assert other == ["$(VENV)/bin/python -m pip install --no-deps --no-build-isolation -e ."]
    assert set(re.findall(r"requirements/([\w-]+)\.lock", recipe)) == {*LOCKS} - {"site"}
    assert "pip install --quiet --require-hashes --no-deps -r requirements/site.lock" in MAKEFILE


def test_the_audit_is_of_all_that_is_locked_and_fails_where_it_cannot_tell():
    recipe = re.search(r"^audit:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    assert "--strict" in recipe and "$(LOCKS:%=-r %) -r requirements/validators.lock -r requirements/site.lock" in recipe
    assert not re.search(r"^\t-|\|\| true|--ignore-vuln", recipe, re.MULTILINE)


def test_every_locked_version_takes_the_oldest_python_that_we_do():
    """By what each installed distribution says of itself: on Debian 12, whose Python is 3.11.2, `make install` must not end in the middle."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    oldest = re.fullmatch(r">=(3\.\d+)", project["requires-python"])[1]
    there = {canonicalize_name(d.name): d for d in importlib.metadata.distributions()}
    locked = {name: there[name] for name in LOCKED if name in there}
    wanted = {name: d.metadata["Requires-Python"] for name, d in locked.items() if d.version == version(LOCKED[name])}
    assert len(wanted) > 150
    assert {n: w for n, w in wanted.items() if w and not SpecifierSet(w).contains(f"{oldest}.0")} == {}
