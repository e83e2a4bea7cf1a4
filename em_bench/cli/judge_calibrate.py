"""`em-bench judge calibrate`: two judges on the same answers, and one's rate on the other's scale."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from em_bench.cli.score import ConventionName

if TYPE_CHECKING:
    from em_bench.judging import Judge
    from em_bench.records import CalibrationRecord, Estimate, Response, ResponsesHeader
    from em_bench.scoring.calibration import CalibrationReport

Given = list[tuple["ResponsesHeader", "Response"]]


def calibrate(
    responses: Annotated[
        list[Path],
        typer.Argument(help="Files or folders of answers (responses.jsonl); with --apply, of the candidate's verdicts."),
    ],
    reference: Annotated[
        str | None, typer.Option("--reference", help="The judge whose scale counts, e.g. openai:gpt-4o-2024-08-06.")
    ] = None,
    candidate: Annotated[
        str | None, typer.Option("--candidate", help="The judge that is to take its place, e.g. local:Qwen3-14B.")
    ] = None,
    answers: Annotated[int, typer.Option("--answers", "-n", min=10, help="Answers that the reference judges, twice each.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    apply: Annotated[
        Path | None, typer.Option("--apply", metavar="RECORD", help="Report the candidate's rates on the reference's scale.")
    ] = None,
    convention: ConventionName = "code_as_zero",
    out: Annotated[Path, typer.Option("--out", "-o", help="The record: ids and grades, no texts.")] = Path("calibration.json"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge a sample of answers by two judges, twice each, and say how the second one's rates read on the first one's scale.

    The candidate judges all answers once; the sample is drawn by its grades, with many around the threshold, spread over forms and
    models. Options of a judge follow its name: openai:M,base_url=URL,prompts=own-1. Every reply is kept: kill it and run it again.
    Give answers of several optimisers, datasets and degrees of misalignment, 400 or more. Examples:

        em-bench judge calibrate runs/*/evaluation --reference openai:gpt-4o-2024-08-06 --candidate local:Qwen3-14B
        em-bench judge calibrate new/judges/qwen3 --apply calibration.json
    """
    from em_bench.errors import UserError
    from em_bench.scoring import convention_of

    counted = convention_of(convention, "--convention")
    if apply:
        if reference or candidate:
            raise UserError("--apply: the record names both judges; leave --reference and --candidate out")
        _apply(apply, responses, counted, as_json)
        return
    if not (reference and candidate):
        raise UserError("--reference and --candidate: name both judges, or --apply RECORD")
    from em_bench.files import write_record
    from em_bench.scoring.calibration import compare_judges

    record = measured(responses, reference, candidate, answers, seed)
    write_record(out, record)
    report = compare_judges(record, counted)
    if as_json:
        print(report.model_dump_json(indent=1))
        return
    print(
        f"{out}: {len(record.answers)} of {sum(record.population.values())} answers ({counted}; 95 % intervals by {record.unit})"
    )
    _show(record, report)


def measured(responses: Sequence[Path], reference: str, candidate: str, size: int, seed: int) -> "CalibrationRecord":
    """Judge and draw. Raises UserError for files that are none, for one judge twice, and as the judges do."""
    from em_bench.data.questions import clusters, known_domains
    from em_bench.errors import UserError
    from em_bench.evaluation_folder import RESPONSES
    from em_bench.files import read_jsonl, sha256_file
    from em_bench.judging import JudgeOptions, make_judge
    from em_bench.judging.sample import band, draw
    from em_bench.machine import utc_now
    from em_bench.optim import load_recipes
    from em_bench.records import CalibrationRecord, DoublyJudged, Response, ResponsesHeader

    paths = [p / RESPONSES if p.is_dir() else p for p in responses]
    given: Given = []
    for path in paths:
        header, rows = read_jsonl(path, ResponsesHeader, Response)
        given += [(header, r) for r in rows]
    judges = [[make_judge(spec, JudgeOptions(run=run)) for run in (1, 2)] for spec in (reference, candidate)]
    if judges[0][0].identity == judges[1][0].identity:
        raise UserError(
            "--candidate: is the reference; for the noise of one judge take em-bench rejudge --run 2 and em-bench agree"
        )
    n = min(size, len(given))
    print(
        f"{judges[1][0].identity.model} judges {len(given)} answers, then {judges[0][0].identity.model} {n} of them twice and it {n} again",
        file=sys.stderr,
    )
    first = _judged(judges[1][0], given)
    strata, recipes = [band(j) for j in first], load_recipes()
    group = [next((word for word in (h.run_id or "").split(".") if word in recipes), h.model) for h, _ in given]
    drawn = draw(strata, [(r.variant, g, r.question_id) for g, (_, r) in zip(group, given, strict=True)], size, seed)
    sample = [given[d.at] for d in drawn]
    of_reference = [_judged(judge, sample) for judge in judges[0]]
    of_candidate = [[first[d.at] for d in drawn], _judged(judges[1][1], sample)]
    sets = {h.question_set for h, _ in given}
    domain, unit = ({q: v for name in sets for q, v in find(name).items()} for find in (known_domains, clusters))
    return CalibrationRecord(
        reference=judges[0][0].identity,
        candidate=judges[1][0].identity,
        responses_sha256=tuple(map(sha256_file, paths)),
        population={s: strata.count(s) for s in sorted(set(strata))},
        unit="domain" if unit else "question",
        seed=seed,
        answers=tuple(
            DoublyJudged(
                question_id=r.question_id,
                cluster=unit.get(r.question_id, r.cluster),
                variant=r.variant,
                domain=domain.get(r.question_id),
                group=group[d.at],
                sample=r.sample,
                stratum=d.stratum,
                weight=d.weight,
                reference=tuple(_grade(run[i]) for run in of_reference),
                candidate=tuple(_grade(run[i]) for run in of_candidate),
            )
            for i, (d, (_, r)) in enumerate(zip(drawn, sample, strict=True))
        ),
        created=utc_now(),
    )


def _judged(judge: "Judge", given: Given):
    return judge.judge([(r.system, r.question, r.answer) for _, r in given])


def _grade(j):
    from em_bench.records import Grade

    return Grade(alignment=j.alignment, coherence=j.coherence, label=j.label)


def _apply(path: Path, verdicts: Sequence[Path], convention, as_json: bool) -> None:
    import json

    from em_bench.cli.agree import but_run
    from em_bench.data.questions import clusters
    from em_bench.errors import UserError
    from em_bench.evaluation_folder import RESPONSES, VERDICTS
    from em_bench.files import read_jsonl, read_record
    from em_bench.records import CalibrationRecord, Response, ResponsesHeader, Verdict, VerdictsHeader
    from em_bench.scoring.calibration import on_reference_scale

    record = read_record(path, CalibrationRecord)
    found = {}
    for given in verdicts:
        file = given / VERDICTS if given.is_dir() else given
        header, rows = read_jsonl(file, VerdictsHeader, Verdict)
        if but_run(header.judge) != but_run(record.candidate):
            raise UserError(
                f"{file}: judged by {header.judge.model}, not as the candidate of {path} ({record.candidate.model}) judges"
            )
        beside = file.with_name(RESPONSES)
        by = clusters(read_jsonl(beside, ResponsesHeader, Response)[0].question_set) if beside.exists() else {}
        found[str(file)] = on_reference_scale(record, rows, convention, by)
    if as_json:
        print(json.dumps({name: f.model_dump(mode="json") for name, f in found.items()}, indent=1))
        return
    print(
        f"misaligned rate by {record.candidate.model}, and on the scale of {record.reference.model} ({convention}; 95 %, the map's error in it)"
    )
    for name, f in found.items():
        print(f"{name}: {f.candidate:.3f}, {_text(f.reference) if f.reference else f.verdict}")


def _show(record: "CalibrationRecord", report: "CalibrationReport") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, highlight=False)
    console = console if console.is_terminal else Console(markup=False, emoji=False, width=160, highlight=False)
    print(f"reference: {record.reference.model}; candidate: {record.candidate.model}")
    runs = report.kappa_of_runs
    print(
        f"kappa of outcomes {_kappa(report.kappa)}; of two runs of one judge: reference {_kappa(runs['reference'])}, candidate "
        f"{_kappa(runs['candidate'])}"
    )
    for judge, left in report.unjudged.items():
        if left:
            print(f"the {judge} left {left:.1%} of the answers unjudged")
    seen = [o for o, row in report.confusion.items() if any(row.values()) or any(r[o] for r in report.confusion.values())]
    table = Table("reference \\ candidate", *seen, box=box.SIMPLE)
    for o in seen:
        table.add_row(o, *(f"{report.confusion[o][c]:.3f}" for c in seen))
    console.print(table)
    table = Table("candidate's alignment", "answers", "candidate's mean", "reference's mean", box=box.SIMPLE)
    for name, b in report.scores.items():
        table.add_row(name, str(b.n), f"{b.candidate:.1f}", f"{b.reference:.1f}")
    if report.scores:
        console.print(table)
    table = Table("misaligned rate", "answers", "reference", "candidate", "candidate - reference", box=box.SIMPLE)
    groups = {"all": report.overall} | report.by_variant | report.by_domain | report.by_group
    for name, c in groups.items():
        table.add_row(name, str(c.n), _text(c.reference), _text(c.candidate), _text(c.difference, "+.3f"))
    console.print(table)


def _kappa(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _text(e: "Estimate", form: str = ".3f") -> str:
    if e.value is None:
        return "-"
    return f"{e.value:{form}}" + ("" if e.low is None else f" [{e.low:{form}}, {e.high:{form}}]")
