"""The results of an entry as a handful of files, and back to the folders that they came from, byte for byte.

records.parquet        kind, name, record: run.json, score.json and the first lines of responses and verdicts, as JSON
steps.parquet          a row a line of train.jsonl, after the run's id
responses.parquet      a row a response, after the evaluation's name, with what the judge said of it; a further run of the judge
                       has columns of its own (alignment_2, ...)
adapters.safetensors   where there are any: `em_bench.board.packed_adapters`

The hashes of the chain are those of the JSON lines that the rows stand for: one line a record, written by `em_bench.files`.
"""

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from em_bench.board.packed_adapters import PackedAdapters
from em_bench.board.parquet_table import Column, Table, columns_of, flat, nested, write_table
from em_bench.errors import UserError
from em_bench.evaluation_folder import EVALUATIONS, EvaluationFolder, verdicts_name
from em_bench.files import atomic_file, first_problem, json_line, parse_record, read_text, sha256_file, sha256_lines, write_text
from em_bench.records import (
    Record,
    Response,
    ResponsesHeader,
    RunRecord,
    ScoreRecord,
    StepRecord,
    Verdict,
    VerdictsHeader,
)
from em_bench.run_folder import CONFIG, RUNS, WEIGHTS, RunFolder

M = TypeVar("M", bound=Record)
FILES = RECORDS, STEPS, RESPONSES = "records.parquet", "steps.parquet", "responses.parquet"
MOST_JUDGE_RUNS = 9
OF_RESPONSE = set(Response.model_fields) & set(Verdict.model_fields)  # what a verdict repeats of its response


class EntryEvaluation(NamedTuple):
    """One evaluation. `verdicts` holds each run of the judge; the first is the one that is scored.

    `responses_sha256` and `verdicts_sha256` are of the JSON lines that the rows stand for; where texts are withheld, the former
    is that of the author's own lines.
    """

    header: ResponsesHeader
    responses: list[Response]
    verdicts: list[tuple[VerdictsHeader, list[Verdict]]]
    score: ScoreRecord
    responses_sha256: str
    verdicts_sha256: list[str]


def step_columns() -> list[Column]:
    """Of steps.parquet."""
    return [Column("run_id", "text"), *columns_of(StepRecord)]


def response_columns(judge_runs: int) -> list[Column]:
    """Of responses.parquet with the verdicts of so many runs of the judge."""
    said = [c for c in columns_of(Verdict) if c.name not in OF_RESPONSE]
    verdicts = [Column(_of_run(c.name, run), c.kind, True) for run in range(1, judge_runs + 1) for c in said]
    return [Column("evaluation", "text"), *columns_of(Response), *verdicts]


RECORD_COLUMNS = [Column(name, "text") for name in ("kind", "name", "record")]


def _of_run(column: str, run: int) -> str:
    return column if run == 1 else f"{column}_{run}"


def pack(out: Path, runs: Iterable[RunFolder], evaluations: Iterable[EvaluationFolder]) -> None:
    """Write the three tables of these runs and evaluations into `out`. Raises UserError for a folder whose bytes would not come back."""
    records: list[dict[str, str]] = []
    steps: list[dict[str, Any]] = []
    responses: list[dict[str, Any]] = []
    most = 1

    def note(kind: str, name: str, record: str) -> str:
        records.append({"kind": kind, "name": name, "record": record.removesuffix("\n")})
        return record

    for run in runs:
        record, log = run.record(), run.log()
        _comes_back(run.log_file, map(json_line, log))
        note("run", record.run_id, _compact(run.record_file))
        steps += [{"run_id": record.run_id} | flat(StepRecord, json.loads(json_line(row))) for row in log]
    for at in evaluations:
        name = at.path.name
        _, answers = at.responses()
        _comes_back(at.responses_file, [note("responses", name, _first(at.responses_file)), *map(json_line, answers)])
        rows = [{"evaluation": name} | flat(Response, json.loads(json_line(r))) for r in answers]
        for judge_run in range(1, MOST_JUDGE_RUNS + 1):
            path = at.path / verdicts_name(judge_run)
            if not path.exists():
                break
            _, verdicts = at.verdicts(judge_run)
            _comes_back(path, [note(_kind(judge_run), name, _first(path)), *map(json_line, verdicts)])
            most = max(most, judge_run)
            if [_key(v) for v in verdicts] != [_key(r) for r in answers]:
                raise UserError(f"{at.path}: its verdicts are not in the order of its responses; judge them again")
            for row, verdict in zip(rows, verdicts, strict=True):
                row |= {
                    _of_run(k, judge_run): v
                    for k, v in flat(Verdict, json.loads(json_line(verdict))).items()
                    if k not in OF_RESPONSE
                }
        note("score", name, _compact(at.score_file))
        responses += rows
    write_table(out / RECORDS, RECORD_COLUMNS, records)
    write_table(out / STEPS, step_columns(), steps)
    write_table(out / RESPONSES, response_columns(most), responses)


def _key(row: Response | Verdict) -> tuple[Any, ...]:
    return tuple(getattr(row, field) for field in sorted(OF_RESPONSE))


def _kind(judge_run: int) -> str:
    return "verdicts" if judge_run == 1 else f"verdicts-{judge_run}"


def _first(path: Path) -> str:
    """The first line of a file, its end included: kept as it is, whatever fields its time knew."""
    with path.open(encoding="utf-8", newline="\n") as f:
        return f.readline()


def _compact(path: Path) -> str:
    """A JSON file as one line."""
    return json.dumps(json.loads(read_text(path)), ensure_ascii=False, allow_nan=False)


def _comes_back(path: Path, lines: Iterable[str]) -> None:
    if sha256_file(path) != sha256_lines(lines):
        raise UserError(f"{path}: is not as em-bench writes it; make it again")


class Packed:
    """A folder that `pack` filled, as hostile input. Every reader raises UserError; what is read is kept."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._logs: dict[str, list[StepRecord]] = {}
        self._evaluations: dict[str, EntryEvaluation] = {}

    @cached_property
    def _records(self) -> dict[tuple[str, str], str]:
        table = Table(self.folder / RECORDS, RECORD_COLUMNS)
        found: dict[tuple[str, str], str] = {}
        for row in table.rows((0, len(table))):
            key = (row["kind"], row["name"])
            if key in found:
                raise UserError(
                    f"{table.path}: the {key[0][:40]!r} of {key[1][:200]!r} stands twice; `em-bench submit run` writes it"
                )
            if "\n" in row["record"]:
                raise UserError(f"{table.path}: a record of several lines; `em-bench submit run` writes it")
            found[key] = row["record"]
        return found

    @cached_property
    def _steps(self) -> tuple[Table, dict[str, tuple[int, int]]]:
        table = Table(self.folder / STEPS, step_columns())
        return table, table.groups("run_id")

    @cached_property
    def _responses(self) -> tuple[Table, dict[str, tuple[int, int]]]:
        runs = [n for n in range(1, MOST_JUDGE_RUNS + 1) if any(kind == _kind(n) for kind, _ in self._records)]
        table = Table(self.folder / RESPONSES, response_columns(max(runs, default=1)))
        return table, table.groups("evaluation")

    def names(self) -> tuple[set[str], set[str]]:
        """Ids of all runs and names of all evaluations. Raises UserError for a record of another kind, and for rows without a record."""
        kinds = {"run", "responses", "score", *map(_kind, range(1, MOST_JUDGE_RUNS + 1))}
        strange = next((kind for kind, _ in self._records if kind not in kinds), None)
        runs = {name for kind, name in self._records if kind == "run"}
        evaluations = {name for kind, name in self._records if kind != "run"}
        for file, rows, known in ((STEPS, self._steps[1], runs), (RESPONSES, self._responses[1], evaluations)):
            strange = strange or next(iter(rows.keys() ^ known), None)
            if strange is not None:
                raise UserError(
                    f"{self.folder / file}: {strange[:200]!r} has rows and no record, or a record and no rows, or another kind"
                )
        return runs, evaluations

    def _record(self, kind: str, name: str, model: type[M]) -> M:
        where = f"{self.folder / RECORDS}: {kind} of {name}"
        if (kind, name) not in self._records:
            raise UserError(f"{where}: is missing; `em-bench submit run` writes it")
        return parse_record(self._records[kind, name], model, where)

    def run(self, run_id: str) -> RunRecord:
        """run.json of a run."""
        return self._record("run", run_id, RunRecord)

    def log(self, run_id: str) -> list[StepRecord]:
        """train.jsonl of a run."""
        if run_id not in self._logs:
            table, groups = self._steps
            self._logs[run_id] = _typed(StepRecord, table, groups.get(run_id, (0, 0)))
        return self._logs[run_id]

    def log_sha256(self, run_id: str) -> str:
        """sha256 of train.jsonl."""
        return sha256_lines(map(json_line, self.log(run_id)))

    def evaluation(self, name: str) -> EntryEvaluation:
        """One evaluation with every run of its judge."""
        if name not in self._evaluations:
            header = self._record("responses", name, ResponsesHeader)
            table, groups = self._responses
            span = groups.get(name, (0, 0))
            responses = _typed(Response, table, span)
            verdicts = []
            for run in range(1, MOST_JUDGE_RUNS + 1):
                if run > 1 and (_kind(run), name) not in self._records:
                    break
                verdicts.append((self._record(_kind(run), name, VerdictsHeader), _typed(Verdict, table, span, run)))
            self._evaluations[name] = EntryEvaluation(
                header,
                responses,
                verdicts,
                self._record("score", name, ScoreRecord),
                header.withheld or sha256_lines(self._lines("responses", name, responses)),
                [sha256_lines(self._lines(_kind(n), name, rows)) for n, (_, rows) in enumerate(verdicts, 1)],
            )
        return self._evaluations[name]

    def _lines(self, kind: str, name: str, rows: Iterable[Record]) -> Iterator[str]:
        """The file that a header and rows stand for."""
        yield self._records[kind, name] + "\n"
        yield from map(json_line, rows)

    @cached_property
    def adapters(self) -> PackedAdapters:
        """The adapters, where there are any."""
        return PackedAdapters(self.folder)

    def unpack(self, out: Path) -> None:
        """Write runs/ID/ and evaluations/NAME/ into `out`, as they were before they were packed."""
        runs, evaluations = self.names()
        for run_id in sorted(runs):
            run = RunFolder(out / RUNS / run_id)
            write_text(run.log_file, "".join(map(json_line, self.log(run_id))))
            write_text(run.record_file, _indented(self._records["run", run_id]))
        for run_id, step in self.adapters.index:
            weights = self.adapters.weights(run_id, step)
            if run_id not in runs or weights is None:
                raise UserError(f"{self.adapters.path}: is of run {run_id}, which has no record")
            folder = RunFolder(out / RUNS / run_id).adapter(step)
            write_text(folder / CONFIG, self.adapters.config(run_id, step))
            with atomic_file(folder / WEIGHTS, "wb") as f:
                f.write(weights)
        for name in sorted(evaluations):
            at, found = EvaluationFolder(out / EVALUATIONS / name), self.evaluation(name)
            write_text(at.responses_file, "".join(self._lines("responses", name, found.responses)))
            for judge_run, (_, rows) in enumerate(found.verdicts, 1):
                write_text(at.path / verdicts_name(judge_run), "".join(self._lines(_kind(judge_run), name, rows)))
            write_text(at.score_file, _indented(self._records["score", name]))


def _indented(record: str) -> str:
    """As `em_bench.files.write_record` lays it out."""
    return json.dumps(json.loads(record), indent=1, ensure_ascii=False) + "\n"


def _typed(model: type[M], table: Table, span: tuple[int, int], judge_run: int = 1) -> list[M]:
    """Rows of a table as records; of a verdict, the columns of that run of the judge."""
    names = [c.name for c in columns_of(model)]
    theirs = [n if n in OF_RESPONSE else _of_run(n, judge_run) for n in names] if model is Verdict else names
    plain = names == list(model.model_fields)
    found = []
    for number, row in enumerate(table.rows(span, theirs), span[0] + 1):
        row = dict(zip(names, row.values(), strict=True)) if judge_run > 1 else row
        try:
            found.append(model.model_validate(row if plain else nested(model, row), strict=True))
        except ValidationError as e:
            raise UserError(f"{table.path}: row {number}: {first_problem(e)}; `em-bench submit run` writes it") from None
    if not found:
        raise UserError(f"{table.path}: lacks the rows of a record; `em-bench submit run` writes it")
    return found
