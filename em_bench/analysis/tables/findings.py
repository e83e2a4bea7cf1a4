"""What is quoted first: every finding in full, the same in five columns, and how the results were made."""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from em_bench.analysis.claims import REMOVED
from em_bench.analysis.finding import Finding
from em_bench.analysis.power import Verdict
from em_bench.analysis.tables.table import Table, number, table
from em_bench.records import Results

FORMS = {
    "loss-order": ("+.2f", ""),
    "loss-r2": (".2f", ""),
    "stratified-r2": (".2f", ""),
    "qwen3-4b": (".1f", ""),
    "code-clean": (".1f", " %"),
    "lion-code": (".1f", " %"),
}  # of a finding's number, and its unit; the others are differences in points


def findings_table(found: tuple[Finding, ...]) -> Table:
    """The paper's numbers beside ours."""
    columns = [
        ("finding", "claim", ""),
        ("study", "study", ""),
        ("paper", "paper", ""),
        ("sure", "provenance", ""),
        ("ours", "ours", ""),
        ("beside it", "beside", ""),
        ("verdict", "verdict", ""),
    ]
    columns += [
        ("why", "why", ""),
        ("rule", "rule", ""),
        ("needs", "needs", ""),
        ("to tell", "needed", ""),
        ("paper's protocol", "paper_protocol", ""),
        ("our protocol", "ours_protocol", ""),
    ]
    caption = (
        "P: stated in the paper, or read off its Figure 1; S: independent readings of the paper agree. Rules and thresholds are "
        "ours. Where what a finding needs is not met, nothing can be told. `to tell`: the smallest sample at which 80 % of simulated studies decide, were the paper's effect true and the "
        f"scatter ours. Each of the {len(found)} rules stands on its own 95 % interval, uncorrected for their number: by chance "
        f"alone {0.05 * len(found):.1f} of them would miss."
    )
    rows = [
        (
            f.claim,
            f.study,
            f.paper,
            f.provenance,
            f.ours,
            f.beside or None,
            f.verdict,
            f.why,
            f.rule,
            ", ".join(f.needs) or None,
            f.needed or None,
            f.paper_protocol,
            f.ours_protocol,
        )
        for f in found
    ]
    return table("findings", "The paper's findings beside ours", caption, columns, rows)


def verdicts_table(found: tuple[Finding, ...]) -> Table:
    """One short line a finding, for a log or a talk."""
    columns = [
        ("finding", "claim", ""),
        ("study", "study", ""),
        ("paper", "paper", ""),
        ("here, 95 % interval", "ours", ""),
        ("verdict", "verdict", ""),
    ]
    rows = [(f.claim, f.study, f"{f.paper} ({f.provenance})", _short(f), f.verdict, f.needed or None) for f in found]
    n = Counter(f.verdict for f in found)
    told = ", ".join(f"{n[v]} {v}" for v in get_args(Verdict) if n[v])
    caption = f"Of {len(found)}: {told}. P: stated in the paper, or read off its Figure 1; S: independent readings agree. Not asked any more: "
    caption += "; ".join(f"{name} ({why})" for name, why in REMOVED.items()) + ". The rules: table of findings."
    return table("verdicts", "The paper's findings: verdicts", caption, [*columns, ("to tell", "needed", "")], rows)


def provenance_table(sources: Sequence[Results]) -> Table:
    """A row a results file that was read."""
    columns = [
        ("preset", "preset", ""),
        ("its hash", "preset_sha256", ""),
        ("made", "created", ""),
        ("minutes", "minutes", ".1f"),
    ]
    columns += [("adapters", "adapters", "d"), ("checkpoints", "checkpoints", "d"), ("commit", "commit", "")]
    columns += [("em_bench", "em_bench", ""), ("machine", "machine", ""), ("without a result", "missing", "d")]
    rows = [
        (
            r.preset,
            r.preset_sha256[:12],
            r.created,
            None if r.wall_s is None else r.wall_s / 60,
            sum(c.recipe is not None for c in r.cells),
            len(r.checkpoints),
            r.machine.commit,
            r.machine.em_bench,
            r.machine.gpu or r.machine.cpu,
            len(r.missing),
        )
        for r in sources
    ]
    caption = "Minutes: of the command that ended the sweep; what an interrupted one had done before is not in them."
    return table("provenance", "How these results were made", caption, columns, rows)


def _short(f: Finding) -> str | None:
    if f.value is None:
        return None
    form, unit = FORMS.get(f.id, ("+.1f", " points"))
    bounds = "" if f.low is None or f.high is None else f" [{number(f.low, form)}, {number(f.high, form)}]"
    return f"{number(f.value, form)}{unit}{bounds}"
