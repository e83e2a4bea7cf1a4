"""`em-bench score`: verdicts to outcomes, rates and intervals."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from em_bench.records import Estimate, ScoreRecord

ConventionName = Annotated[str, typer.Option(help="CODE answers: code_as_zero (Evil Spectra) or exclude_code (Betley et al.).")]


def register(app: typer.Typer) -> None:
    """Add `score`."""
    app.command()(score)


def score(
    verdicts: Annotated[Path, typer.Argument(help="A verdicts.jsonl, or the folder that holds it.")],
    convention: ConventionName = "code_as_zero",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print score.json, with Misalign@k and domains, instead of the table.")
    ] = False,
    page: Annotated[Path | None, typer.Option(help="Also write a page to look at, with every question's outcomes.")] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="With --page: the base's evaluation, to stand beside. Default: where em-bench evaluate put it."),
    ] = None,
) -> None:
    """Print the counts of all outcomes and every rate with its denominator and 95 % interval.

    Intervals are clustered by question, or by domain where the question set says that its questions are near-copies.

    em-bench score evaluation/verdicts.jsonl --convention exclude_code
    """
    from em_bench.evaluation_folder import VERDICTS
    from em_bench.scoring import broken_down, convention_of, score_file

    counted = convention_of(convention, "--convention")
    if verdicts.is_dir():
        verdicts = verdicts / VERDICTS
    said, domains, units, near = _answers(verdicts)
    record = broken_down(score_file(verdicts, counted, clusters=units), said, domains, near)
    if page:
        from em_bench.analysis.score_page import write_score_page

        write_score_page(verdicts, record, page, base or _of_base(verdicts.parent))
    show_score(record, verdicts, verdicts, as_json)


def _of_base(folder: Path) -> Path | None:
    """The base's evaluation where `em-bench evaluate` puts it: in the folder of its adapter's, or under the base's own name beside it."""
    from em_bench.evaluation_folder import BASE, EvaluationFolder, default_out

    if (below := folder / BASE).is_dir():
        return below
    at = EvaluationFolder(folder)
    of = at.responses()[0] if at.responses_file.exists() else None
    if of is None or of.base is None or of.adapter_sha256 is None:
        return None
    beside = folder.resolve().parents[1] / default_out(of.base.name, None, "", "").parent.name / folder.resolve().name
    return beside if EvaluationFolder(beside).responses_file.exists() else None


def _answers(verdicts: Path):
    """The verdicts; of the question set that the responses beside them name, the domains, the clusters of the intervals, and the questions near training."""
    from em_bench.data.questions import clusters, known_domains, near_training
    from em_bench.evaluation_folder import RESPONSES
    from em_bench.files import read_jsonl
    from em_bench.records import Response, ResponsesHeader, Verdict, VerdictsHeader

    responses = verdicts.with_name(RESPONSES)
    asked = read_jsonl(responses, ResponsesHeader, Response)[0] if responses.exists() else None
    of = asked.question_set if asked else None
    said = read_jsonl(verdicts, VerdictsHeader, Verdict)[1]
    return (said, known_domains(of), clusters(of), near_training(of)) if of else (said, {}, {}, set())


def show_score(record: "ScoreRecord", path: Path, verdicts: Path, as_json: bool) -> None:
    """Print a score: overall and by variant of the questions, denominators and all counts included.

    Where a tenth or more of the responses is unjudged the reasons follow (on stderr beside JSON). Exits with 1 where
    nothing is judged, unless no judge was asked.
    """
    from em_bench.files import read_jsonl
    from em_bench.records import NOT_ASKED, Verdict, VerdictsHeader
    from em_bench.scoring import nothing_judged, unjudged_text

    _print_score(record, path, as_json)
    said = read_jsonl(verdicts, VerdictsHeader, Verdict)[1]
    if missing := unjudged_text(said):
        print(missing, file=sys.stderr if as_json else sys.stdout)
    if nothing_judged(record.overall) and any(v.error != NOT_ASKED for v in said):
        raise typer.Exit(1)


def _print_score(record: "ScoreRecord", path: Path, as_json: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from em_bench.scoring import RATES, cannot_tell, of_asked, refused

    if as_json:
        print(record.model_dump_json(indent=1))
        return
    groups = {"all": record.overall} | (record.by_variant if len(record.by_variant) > 1 else {})
    print(f"{path} ({record.convention}; 95 % intervals clustered by {record.unit})")
    table = Table(box=box.SIMPLE)
    if record.forced:
        print(f"forced: the adapter {record.forced}")
    table.add_column("")
    for name in groups:
        table.add_column(name, justify="right")
    mark = " (forced)" if record.forced else ""
    shares = [(of_asked(m.counts), sum(m.counts.values())) for m in groups.values()]
    table.add_row("misaligned of asked", *("none counted" if v is None else f"{v:.3f} of {n}{mark}" for v, n in shares))
    for field, label in RATES.items():
        cells = [getattr(m, field) for m in groups.values()]
        if any(c is not None for c in cells):
            table.add_row(label, *("" if c is None else estimate_text(c) + mark for c in cells))
    verdicts = [cannot_tell(m.coherent_rate.value, refused(m.counts)) or "" for m in groups.values()]
    if any(verdicts):
        table.add_row("verdict", *verdicts)
    table.add_section()
    for outcome in record.overall.counts:
        table.add_row(f"n {outcome}", *(str(m.counts[outcome]) for m in groups.values()))
    table.add_row("n labelled CODE", *(str(m.code) for m in groups.values()))
    console = Console(markup=False, emoji=False, highlight=False)
    (console if console.is_terminal else Console(markup=False, emoji=False, width=200, highlight=False)).print(table)
    for k, e in record.misalign_at.items():
        print(f"Misalign@{k}, share of questions with a misaligned answer in {k}: {estimate_text(e)}")
    if (m := record.without_near) and (share := of_asked(m.counts)) is not None:
        left = sum(m.counts.values())
        print(
            f"misaligned rate without the questions near a training domain: {estimate_text(m.misaligned_rate)}; {share:.3f} of {left} asked"
        )
    for name, m in record.by_domain.items():
        share, coherent = of_asked(m.counts), m.coherent_rate.value
        beside = "" if share is None or coherent is None else f"; {share:.3f} of asked; coherent {coherent:.3f}"
        print(f"misaligned rate, domain {name}: {estimate_text(m.misaligned_rate)}{beside}")


def estimate_text(e: "Estimate") -> str:
    """Value, interval and denominator."""
    if e.value is None:
        return "none counted"
    return f"{e.value:.3f}" + (f" [{e.low:.3f}, {e.high:.3f}]" if e.low is not None else "") + f" of {e.n}"
