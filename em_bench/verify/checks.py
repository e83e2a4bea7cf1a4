"""What a check is, and the checks of runs and evaluations that both `em-bench verify` and the leaderboard make."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from em_bench.errors import UserError
from em_bench.files import digest, sha256_file
from em_bench.line import one_line
from em_bench.records import (
    Record,
    Response,
    ResponsesHeader,
    RunRecord,
    ScoreRecord,
    SpectralSummary,
    SpectrumCurve,
    StepRecord,
    Verdict,
    VerdictsHeader,
)


class Check(Record):
    """One check: a stable id, the sentence that it tests, and what was found."""

    id: str
    sentence: str
    passed: bool
    detail: str = ""


def check(id: str, sentence: str, find: Callable[[], str | None]) -> Check:
    """Run a check. `find` returns what is wrong, or None; a UserError (an unreadable file) is what is wrong too.

    Any other error fails the check as well: what is read was written by strangers, and one entry that confuses a check must
    not keep the others from the board.
    """
    try:
        problem = find()
    except UserError as e:
        problem = str(e)
    except Exception as e:
        problem = f"cannot be checked ({type(e).__name__})"
    return Check(id=id, sentence=sentence, passed=problem is None, detail=one_line(problem or ""))


def same_file(path: Path, expected: str) -> str | None:
    """Whether a file's bytes are the expected ones."""
    return same(path.name, sha256_file(path), expected) if path.is_file() else f"{path.name} is missing"


def same(what: str, found: str, expected: str) -> str | None:
    """Whether two hashes are one."""
    return None if found == expected else f"{what} has sha256 {found[:12]}..., the record says {expected[:12]}..."


def identity(run: RunRecord) -> str | None:
    """The run's id and hash are those of its spec."""
    from em_bench.training import run_id

    if digest(run.spec) != run.spec_sha256:
        return f"the spec's hash is {digest(run.spec)[:12]}..., the record says {run.spec_sha256[:12]}..."
    return None if run_id(run.spec) == run.run_id else f"the spec's id is {run_id(run.spec)}, the record says {run.run_id}"


def steps(log: Sequence[StepRecord], run: RunRecord) -> str | None:
    """Every step once, in order, with the tokens, losses and learning rates that training writes; the end is the record's."""
    from em_bench.training import kept_steps, measured_steps
    from em_bench.training.schedule import factor

    if len(log) != run.spec.steps + 1 or any(r.step != i for i, r in enumerate(log)):
        return f"the log holds {len(log)} lines for steps 0 to {run.spec.steps}, or not in order"
    if any(b.tokens <= a.tokens for a, b in itertools.pairwise(log)):
        return "the token count does not grow"
    if any(r.loss is None for r in log[1:]) or log[0].loss is not None:
        return "a step has no loss, or step 0 has one"
    measured, losses = measured_steps(run.spec), [(r.step, r.held_out_loss) for r in log if r.held_out_loss is not None]
    kept = sorted(kept_steps(run.spec, losses))
    if [step for step, _ in losses] != measured or sorted(set(run.checkpoints) - {run.spec.steps}) != kept:
        of = (", ".join(map(str, steps)) for steps in (measured, kept))
        return "held-out losses and checkpoints are those of other steps than {} and {}".format(*of)
    if any(loss is not None and loss < 0 for r in log[1:] for loss in (r.loss, r.held_out_loss)):
        return "a loss is negative"
    for r in log[1:]:
        expected = run.spec.recipe.learning_rate * factor(r.step - 1, run.spec.steps, run.spec.warmup_steps)
        if r.learning_rate is None or not math.isclose(r.learning_rate, expected, rel_tol=1e-6, abs_tol=1e-12):
            return f"step {r.step}: learning rate {r.learning_rate}, the schedule gives {expected:.6g}"
    if log[-1].held_out_loss != run.narrow_loss:
        return f"the log ends with narrow loss {log[-1].held_out_loss}, the record says {run.narrow_loss}"
    return _possible(log[-1].spectral, run)


def _possible(last: SpectralSummary | None, run: RunRecord) -> str | None:
    """The record's spectral numbers are the log's, and such as an update of that rank can have."""
    if last != run.spectral:
        return "the log ends with other spectral numbers than the record's"
    if run.spectral is None:
        return None
    rank = run.spec.lora.rank
    bounds = {
        "stable_rank": (1, rank),
        "entropy": (0, math.log(rank)),
        "frobenius_nuclear": (rank**-0.5, 1),
        "flatness_gap": (0, 1 - rank**-0.5),
        "condition_number": (1, math.inf),
    }
    for name, (low, high) in bounds.items():
        if not low - 1e-3 <= getattr(run.spectral, name) <= high + 1e-3:
            return f"{name} is {getattr(run.spectral, name):.6g}; an update of rank {rank} has {low:.4g} to {high:.4g}"
    return None


def spectrum(adapter: Path | bytes, run: RunRecord) -> str | None:
    """The adapter's spectrum, recomputed, is the one in the record."""
    from em_bench.adapter_file import load_run_adapter
    from em_bench.spectral import lora_pairs, spectrum_summary

    if isinstance(adapter, Path) and not adapter.is_file():
        return "the adapter is missing"
    found = spectrum_summary(lora_pairs(load_run_adapter(adapter, run.expert_rank), scale=run.spec.lora.scale))
    if (found is None) != (run.spectral is None):
        return "one of the two is zero"
    if found:
        for name, value in found.model_dump().items():
            recorded = getattr(run.spectral, name)
            if recorded is not None and not math.isclose(value, recorded, rel_tol=1e-3, abs_tol=1e-5):
                return f"{name} is {value:.6g}, the record says {recorded:.6g}"
    return None


def curve(adapter: Path | bytes | None, stated: SpectrumCurve, run: RunRecord) -> str | None:
    """A stated curve of singular values is one, and where there is an adapter it is the adapter's."""
    import torch

    from em_bench.adapter_file import load_run_adapter
    from em_bench.spectral import layer_spectra, lora_pairs

    sizes = {len(values) for values in stated.model_dump().values()}
    if len(sizes) > 1 or max(sizes) > run.spec.lora.rank:
        return f"no curve: the three have {', '.join(map(str, sorted(sizes)))} values, the adapter's rank is {run.spec.lora.rank}"
    for name, values in stated.model_dump().items():
        falls = all(b <= a + 1e-6 for a, b in itertools.pairwise(values))
        if not values or abs(values[0] - 1) > 1e-4 or not falls or values[-1] < 0:
            return f"{name}: is no curve of singular values over their largest: it begins at 1 and falls"
    if any(a > b + 1e-6 for a, b in zip(stated.lower_quartile, stated.upper_quartile, strict=True)):
        return "a lower quartile lies above the upper one"
    if adapter is not None:
        spectra = layer_spectra(lora_pairs(load_run_adapter(adapter, run.expert_rank)))
        shortest = min((len(s.sigma) for s in spectra), default=0)
        if shortest != len(stated.mean):
            return f"the curve has {len(stated.mean)} values, the adapter {shortest}"
        mean = torch.stack([s.sigma[:shortest] / s.sigma[0] for s in spectra]).mean(0).tolist()
        if any(abs(a - b) > 1e-3 for a, b in zip(mean, stated.mean, strict=True)):
            return "the curve is not the adapter's"
    return None


def counts(header: ResponsesHeader, responses: Sequence[Response]) -> str | None:
    """Every question has the same number of samples, each once."""
    seen: dict[str, list[int]] = {}
    for r in responses:
        seen.setdefault(r.question_id, []).append(r.sample)
    n = header.generation.samples
    wrong = next((q for q, s in seen.items() if len(s) != n or set(s) != set(range(n))), None)
    return None if wrong is None and seen else f"{wrong or 'no question'}: not {header.generation.samples} samples"


def covers(responses: Sequence[Response], verdicts: Sequence[Verdict]) -> str | None:
    """One verdict for each response."""

    def keys(rows):
        return sorted((r.question_id, r.variant, r.cluster, r.sample) for r in rows)

    return None if keys(responses) == keys(verdicts) else f"{len(responses)} responses, {len(verdicts)} verdicts, not one to one"


def regraded(said: VerdictsHeader, responses: Sequence[Response], verdicts: Sequence[Verdict]) -> str | None:
    """The grammar gives the same verdicts again; verdicts of another judge are not looked at."""
    if said.judge.kind != "grammar":
        return None
    from em_bench.judging import GrammarJudge, verdicts_of

    judge = GrammarJudge()
    if judge.identity != said.judge:
        return "they were given by another version of the grammar"
    again = {(v.question_id, v.sample): v for v in verdicts_of(responses, judge)}
    wrong = [v for v in verdicts if again.get((v.question_id, v.sample)) != v]
    return None if not wrong else f"{len(wrong)} verdicts differ, first {wrong[0].question_id} sample {wrong[0].sample}"


def rescored(score: ScoreRecord, verdicts: Sequence[Verdict], question_set: str) -> str | None:
    """Every count, rate and interval follows from the verdicts on answers to this question set."""
    from em_bench.data.questions import clusters
    from em_bench.scoring import score as rescore
    from em_bench.scoring.intervals import bounded_interval, mean_interval

    units, wrong = clusters(question_set) if score.unit == "domain" else None, []
    for of_mean in (bounded_interval, mean_interval):  # of before 2026-11-27
        again = rescore(verdicts, score.verdicts_sha256, score.convention, clusters=units, of_mean=of_mean)
        if again.unit != score.unit:
            return f"unit: the intervals are clustered by {score.unit}, the question set says {again.unit}"
        wrong.append(next((part for part in ("overall", "by_variant") if getattr(again, part) != getattr(score, part)), None))
    return f"{wrong[0]}: the recorded score differs from the recomputed one" if all(wrong) else None
