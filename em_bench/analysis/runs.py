"""Any set of results as one table: a row an evaluated adapter, its settings, its rates and its spectrum."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from em_bench.data.models import Model, load_models
from em_bench.errors import UserError
from em_bench.files import MAX_BYTES, atomic_file, canonical_json, digest, parse_record, read_bytes
from em_bench.optim import load_recipes
from em_bench.organism.datasets import CONTROL
from em_bench.records import CellResult, Choice, RecipeClass, Results, Study

NAMES = ("results.json", "results.json.gz")
SPECTRAL = ("stable_rank", "entropy", "condition_number", "frobenius_nuclear", "flatness_gap")
SETTINGS = ["model", "dataset", "recipe", "batch_size", "learning_rate", "spectral_lambda", "seed"]
CODE_SETS = ("insecure", "code")  # left out of the paper's regression
UNIT = ["model", "dataset", "batch_size", "steps", "seed"]  # what two runs share that are compared as a pair


@dataclass(frozen=True)
class Runs:
    """The runs of a report. `cells`, `checkpoints` and `bases` have a row an evaluation; see `frame`."""

    sources: tuple[Results, ...]
    cells: pd.DataFrame
    checkpoints: pd.DataFrame
    bases: pd.DataFrame

    @property
    def organism(self) -> bool:
        """Whether any of the models is an organism."""
        return any(m.startswith("organism-") for m in {*self.cells["model"], *self.bases["model"]})

    def of(self, *studies: Study) -> pd.DataFrame:
        """The runs of any of these studies of the paper; where no run was made for them, all that were made for none.

        A study settles its learning rates, so that its runs are at their own, but for loss-alignment, which varies them.
        """
        rows = [set(studies) & set(c.studies) for c in self.cells["cell"]]
        if not any(rows):
            return self.cells[np.array([not c.studies for c in self.cells["cell"]], bool)].reset_index(drop=True)
        mine = self.cells[np.array([bool(r) for r in rows])].reset_index(drop=True)
        settled = [bool(r - {"loss-alignment"}) for r in rows if r]
        return mine.assign(own_rate=mine["own_rate"] | np.array(settled, bool))

    @property
    def main(self) -> pd.DataFrame:
        """The main sweep: each recipe's own learning rate, no spectral term, bad answers, on the models that saw every recipe."""
        cells = self.of("main")
        good = cells["dataset"].astype(str).str.endswith(CONTROL)
        plain = cells[(cells["spectral_lambda"] == 0) & cells["own_rate"] & ~good]
        seen = plain.groupby("model")["recipe"].nunique()
        return plain[plain["model"].isin(seen[seen == seen.max()].index)].reset_index(drop=True)


def load_runs(paths: Sequence[Path], unended: Callable[[Path], Results] | None = None) -> Runs:
    """Read results files (.json or .json.gz), or work folders that hold one.

    `unended` gives what a work folder without results, whose sweep has not ended, holds so far. An evaluation that is in several of them counts once. Raises UserError for what is no results file, and for runs of
    mixed benchmark versions, which must not be averaged.
    """
    results = [unended(Path(p)) if unended and _is_unended(Path(p)) else _read(_file(Path(p))) for p in paths]
    for r, p in zip(results, paths, strict=True):
        if r.margins and not r.cells:
            raise UserError(
                f"report: {p}: holds margins and no judged answers, and the paper's findings are of those; "
                "its table and page are em-bench reproduce's"
            )
    versions = {v: p for r, p in reversed(list(zip(results, paths, strict=True))) for v in _versions(r)}
    if len(versions) > 1:
        said = "; ".join(f"{path}: {version}" for version, path in versions.items())
        raise UserError(f"report: runs of mixed benchmark versions ({said}); give the runs of one version at a time")
    return runs_of(results)


def pack(runs: Runs, folder: Path) -> list[Path]:
    """Write what was read as folder/results.json.gz, or a file a preset: small, and always the same bytes."""
    names = ["results.json.gz"] if len(runs.sources) == 1 else [f"{i}-{r.preset}.json.gz" for i, r in enumerate(runs.sources, 1)]
    for name, source in zip(names, runs.sources, strict=True):
        with atomic_file(folder / name, "wb") as f:
            f.write(gzip.compress(canonical_json(source).encode(), 9, mtime=0))
    return [folder / n for n in names]


def runs_of(results: Sequence[Results]) -> Runs:
    """The runs of results that are in memory."""
    known, choices = load_models(), [c for r in results for c in r.choices]
    of = _studies(c for r in results for c in [*r.cells, *r.checkpoints])
    ended = _unique((c for r in results for c in r.cells), of)
    trained = mark_own_rates(frame([c for c in ended if c.recipe], known), choices, known)
    earlier = _unique((c for r in results for c in r.checkpoints), of)
    return Runs(tuple(results), trained, frame(earlier, known), frame([c for c in ended if not c.recipe], known))


def frame(cells: Sequence[CellResult], known: dict[str, Model]) -> pd.DataFrame:
    """A row a cell: settings; family and parameters of its model; rates in per cent of valued responses; the cell."""
    rows = []
    for c in cells:
        tally = {
            k: sum(q.counts.get(k, 0) for q in c.questions)
            for k in ("misaligned", "aligned", "incoherent", "refusal", "unjudged")
        }
        valued = tally["misaligned"] + tally["aligned"]
        scores = [a for q in c.questions for a in q.alignment]
        asked = sum(sum(q.counts.values()) for q in c.questions)
        judged = asked - tally["unjudged"]
        model = known.get(c.model)
        rows.append(
            {s: getattr(c, s) for s in (*SETTINGS, "step", "steps", "narrow_loss", "train_loss", "train_window")}
            | {
                "family": model.family if model else None,
                "parameters": model.parameters if model else None,
                "misaligned": tally["misaligned"],
                "valued": valued,
                "rate": 100 * tally["misaligned"] / valued if valued else np.nan,
                "of_asked": 100 * tally["misaligned"] / asked if judged else np.nan,
                "norm": c.spectral.norm if c.spectral else np.nan,
                "alignment": float(np.mean(scores)) if scores else np.nan,
                "coherent": 100 * valued / (valued + tally["incoherent"]) if valued + tally["incoherent"] else np.nan,
                "refused": 100 * tally["refusal"] / asked if asked else np.nan,
                "code": 100 * sum(q.code for q in c.questions) / judged if judged else np.nan,
            }
            | {s: getattr(c.spectral, s) if c.spectral else np.nan for s in SPECTRAL}
            | {"cell": c}
        )
    columns = [
        *SETTINGS,
        "step",
        "steps",
        "narrow_loss",
        "train_loss",
        "train_window",
        "family",
        "parameters",
        "misaligned",
        "valued",
        "rate",
        "of_asked",
        "norm",
        "alignment",
    ]
    columns += ["coherent", "refused", "code", *SPECTRAL, "cell"]
    table = pd.DataFrame(rows, columns=columns)
    numbers = [
        "narrow_loss",
        "train_loss",
        "train_window",
        "parameters",
        "learning_rate",
        "spectral_lambda",
        "rate",
        "of_asked",
        "norm",
        "alignment",
        "coherent",
        "refused",
        "code",
        *SPECTRAL,
    ]
    return table.astype(dict.fromkeys(numbers, float) | {"misaligned": int, "valued": int})


def mark_own_rates(table: pd.DataFrame, choices: Iterable[Choice], known: dict[str, Model]) -> pd.DataFrame:
    """Add `own_rate`: whether the learning rate is the one by which the recipe takes part in the comparison.

    That is the one chosen on narrow loss, else the one with the most runs, else the recipe's default for such a model.
    """
    chosen = {(c.model, c.recipe, c.batch_size): c.chosen for c in choices if c.kind == "learning_rate"}
    recipes, own = load_recipes(), {}
    for key, rates in table.groupby(["model", "recipe", "batch_size"])["learning_rate"]:
        model, recipe, _ = key
        if chosen.get(key) is not None:
            own[key] = chosen[key]
        elif len(most := rates.mode()) == 1:
            own[key] = most.iloc[0]
        elif recipe in recipes:
            kind: RecipeClass = known[model].recipe_class if model in known else "llm"
            own[key] = recipes[recipe].learning_rates[kind].default
    rates = [own.get(k) for k in zip(table["model"], table["recipe"], table["batch_size"], strict=True)]
    known_rates = zip(rates, table["learning_rate"], strict=True)
    return table.assign(own_rate=np.array([r is not None and np.isclose(r, at) for r, at in known_rates], bool))


def counts(table: pd.DataFrame, value: str = "rate") -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators [rows, clusters] of a table's rows, by cluster; 0 where it was not asked.

    `rate`: misaligned responses of those with a value; `alignment`: sum of alignment scores of the same responses.
    """
    clusters = sorted({c.cluster(q) for c in table["cell"] for q in c.questions})
    at = {name: i for i, name in enumerate(clusters)}
    y, n = np.zeros((len(table), len(clusters))), np.zeros((len(table), len(clusters)))
    for row, cell in enumerate(table["cell"]):
        for q in cell.questions:
            i, valued = at[cell.cluster(q)], q.counts.get("misaligned", 0) + q.counts.get("aligned", 0)
            n[row, i] += valued
            y[row, i] += q.counts.get("misaligned", 0) if value == "rate" else sum(q.alignment)
    return y, n


def _key(c: CellResult) -> tuple:
    return c.model, c.dataset, c.run_id, c.step, c.responses_sha256


def _studies(cells: Iterable[CellResult]) -> dict[tuple, list[Study]]:
    """What each evaluation was made for, in all presets together."""
    found: dict[tuple, set[Study]] = {}
    for c in cells:
        found.setdefault(_key(c), set()).update(c.studies)
    return {key: sorted(studies) for key, studies in found.items()}


def _unique(cells: Iterable[CellResult], studies: dict[tuple, list[Study]]) -> list[CellResult]:
    """Each evaluation once: one adapter may lie in two presets, or be both a candidate and the chosen one."""
    return [c.model_copy(update={"studies": studies[key]}) for key, c in {_key(c): c for c in cells}.items()]


def _versions(results: Results) -> set[str]:
    """What must agree for two numbers to mean the same: the package, the convention and the questions."""
    asked = {(c.score.convention, tuple(sorted(q.question_id for q in c.questions))) for c in results.cells}
    return {f"em_bench {results.machine.em_bench}, {kind}, questions {digest(ids)[:8]}" for kind, ids in asked}


def _is_unended(path: Path) -> bool:
    return (path / "plan.json").is_file() and not any((path / name).is_file() for name in NAMES)


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path}: holds no results.json; name a work folder of `em-bench reproduce` or a results file")


def _read(path: Path) -> Results:
    data = read_bytes(path)
    if path.suffix == ".gz":
        try:
            with gzip.open(io.BytesIO(data)) as unpacked:
                data = unpacked.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error):
            raise UserError(f"{path}: not a whole gzip file; make it again") from None
        if len(data) > MAX_BYTES:
            raise UserError(f"{path}: unpacks to over {MAX_BYTES >> 20} MiB; is it the file that was meant?")
    try:
        return parse_record(data.decode("utf-8-sig"), Results, str(path))
    except (UserError, UnicodeDecodeError) as e:
        said = str(e) if isinstance(e, UserError) else f"{path}: not UTF-8 text"
        raise UserError(f"{said}; name a results.json that `em-bench reproduce` wrote") from None
