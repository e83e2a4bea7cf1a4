"""Whether an entry kept a tier's rules: what was run, what was chosen, what was evaluated, what was asked."""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean

from em_bench.board.benchmark import Tier
from em_bench.board.entry import Entry, EntryEvaluation
from em_bench.board.own_code import rules_of
from em_bench.board.submission import OWN_RATE, Submission
from em_bench.data import questions as question_sets
from em_bench.organism import DATASETS, answer_tokens
from em_bench.protocol import FLATNESS, largest_lambda, rate_of, sides, smallest_rate
from em_bench.records import Question, RunRecord, StepRecord
from em_bench.sweep.preset import RateRule

ENTROPY_SLACK = 1e-3  # nats: rounding of float32 losses
CHARACTERS = 64  # of a token, at most: the organism's words have a dozen
MOST_LOSS = 1e6  # nats
START_SLACK = 2e-3  # share: machines differ in the last digits, bfloat16 in the third


def prepare(tier: Tier) -> None:
    """Load what the checks of every entry of the tier need: once, before each is checked in a process of its own."""
    import em_bench.adapter_file
    import em_bench.judging
    import em_bench.scoring
    import em_bench.spectral  # noqa: F401
    from em_bench.training.spec import training_code

    training_code()  # read from the sources, once
    if tier.questions.name == question_sets.ORGANISM:
        _texts(tier.questions.name, tier.questions.variants)
    for dataset in tier.datasets:
        if dataset.name in DATASETS:
            answer_tokens(dataset.name)


def complete(entry: Entry, tier: Tier) -> str | None:
    """Every (model, dataset, seed) once, as a cell or as a gap."""
    wanted = [f"{model}/{dataset}/{seed}" for model, dataset in tier.cells for seed in tier.seeds]
    given = [f"{c.model}/{c.dataset}/{c.seed}" for c in entry.manifest.cells] + list(entry.manifest.missing)
    twice = next((g for g in given if given.count(g) > 1), None)
    if twice:
        return f"{ascii(twice)[1:-1][:80]} stands twice"
    lacking, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if lacking or extra:
        return f"{lacking[0]} has no result" if lacking else f"{ascii(extra[0])[1:-1][:80]} is not of the tier"
    ids = [c.run_id for c in entry.manifest.cells]
    return None if len(set(ids)) == len(ids) else "two cells name one run"


def specs(entry: Entry, tier: Tier, training_code: tuple[str, ...]) -> str | None:
    """Every run, candidates included, against the rules, the code that they know and the submission."""
    for cell in entry.manifest.cells:
        spec = entry.runs[cell.run_id].spec
        if (spec.base.name, spec.dataset.name, spec.seed) != (cell.model, cell.dataset, cell.seed):
            return f"{cell.run_id}: is a run of {spec.base.name}, {spec.dataset.name}, seed {spec.seed}"
    from em_bench.training.spec import training_code as own_training_code

    known = {*training_code, own_training_code()}
    for run_id, run in entry.runs.items():
        if run.spec.code not in known:
            return (
                f"{run_id}: trained by code {run.spec.code[:40]!r}, which the rules do not know; run it again with this version"
            )
        if problem := _spec(run, entry, tier):
            return f"{run_id}: {problem}"
    return None


def _spec(run: RunRecord, entry: Entry, tier: Tier) -> str | None:
    spec, submission = run.spec, entry.submission
    models = {m.name: m.revision for m in tier.models}
    datasets = {d.name: (d.sha256, d.rows) for d in tier.datasets}
    if models.get(spec.base.name) != spec.base.revision:
        return "its base is not the tier's"
    if datasets.get(spec.dataset.name) != (spec.dataset.sha256, spec.dataset.rows):
        return "its dataset is not the tier's"
    if spec.recipe.rules != rules_of(submission, entry.folder):
        return "its optimiser is not the submission's"
    if spec.targets != tier.losses_of(spec.base.name, spec.dataset.name):
        return "its targets are not the tier's"
    if spec.spectral_lambda not in (0.0, *submission.lambdas):
        return f"lambda {spec.spectral_lambda:g} is not among the submission's"
    if spec.flatness != FLATNESS:
        return f"its spectral term measures {spec.flatness}, the rules say {FLATNESS}"
    if spec.lora != tier.lora:
        return "its adapter has another shape"
    fixed = {f: getattr(tier, f) for f in ("batch_size", "warmup_steps", "gradient_clip", "max_length", "dtype")}
    fixed["steps"] = tier.steps_of(spec.dataset.name)
    wrong = next((f for f, v in fixed.items() if getattr(spec, f) != v), None)
    return f"{wrong} is {getattr(spec, wrong)}, the rules say {fixed[wrong]}" if wrong else None


def chosen(entry: Entry, tier: Tier) -> str | None:
    """The smallest rate of the rules' grid that meets the bar on the first seed, and the largest lambda that meets the rule.

    Recomputed from the logs in the entry, not from the choices that the manifest states: the chosen rate and its smaller neighbour,
    and each lambda of the submission, have a run on every dataset. A rate is looked for at lambda 0, or at the submission's only lambda. A choice on the edge has no smaller neighbour, and the most rates were tried.
    """
    submission, known = entry.submission, _candidates(entry, tier)
    tuned_at = submission.lambdas[0] if len(submission.lambdas) == 1 else 0.0
    for model in (m.name for m in tier.models):
        cells = [entry.runs[c.run_id].spec for c in entry.manifest.cells if c.model == model]
        used = {(s.recipe.learning_rate, s.spectral_lambda) for s in cells}
        if not used:
            continue
        if len(used) > 1:
            return f"{model}: its cells use {len(used)} settings; one learning rate and lambda are chosen for a model"
        rate, weight = used.pop()
        means = {r: loss for (m, r, v), loss in known.items() if m == model and v == tuned_at}
        bar = fmean(tier.target(model, d.name).losses[1] for d in tier.datasets) + tier.rates.tolerance
        if problem := _rate(rate, means, bar, submission, tier.rates):
            return f"{model}: {problem}"
        weights = {v: loss for (m, r, v), loss in known.items() if (m, r) == (model, rate)}
        if problem := _weight(weight, weights, bar - tier.rates.tolerance, submission, tier):
            return f"{model}: {problem}"
    return None


def _candidates(entry: Entry, tier: Tier) -> dict[tuple[str, float, float], float]:
    """(model, rate, lambda) -> mean final loss over the datasets on the first seed, where every dataset has its run."""
    losses: dict[tuple[str, float, float], dict[str, float]] = {}
    for run in entry.runs.values():
        if run.spec.seed == tier.seeds[0]:
            key = (run.spec.base.name, run.spec.recipe.learning_rate, run.spec.spectral_lambda)
            losses.setdefault(key, {})[run.spec.dataset.name] = run.narrow_loss
    return {key: fmean(of.values()) for key, of in losses.items() if set(of) == {d.name for d in tier.datasets}}


def _rate(rate: float, means: dict[float, float], bar: float, submission: Submission, rule: RateRule) -> str | None:
    if submission.learning_rate is None:
        return None if rate == OWN_RATE else f"learning rate {rate:g}; on the track self-tuning it is {OWN_RATE:g}"
    grid = {r: place_of(r, rule.per_decade) for r in (*means, rate)}
    if off := next((r for r, place in grid.items() if place is None), None):
        return f"learning rate {off:g} is not on the rules' grid"
    if rate not in means:
        return f"the runs at learning rate {rate:g} that it was chosen by are not in the entry"
    if len(means) > rule.most:
        return f"{len(means)} learning rates were tried, the rules say {rule.most} at most"
    best = smallest_rate(means, bar)
    if best is None:
        best = smallest_rate(means, min(means.values()))
    if rate != best:
        return f"learning rate {rate:g} was used, the logs choose {best:g}"
    below = rate_of((grid[rate] or 0) - 1, rule.per_decade)
    if below not in means and len(means) < rule.most:
        return f"the runs at learning rate {below:g}, the next smaller one, are not in the entry"
    return None


def _weight(weight: float, means: dict[float, float], target: float, submission: Submission, tier: Tier) -> str | None:
    wanted = submission.lambdas
    if len(wanted) == 1:
        return None if weight == wanted[0] else f"lambda {weight:g} was used, the submission says {wanted[0]:g}"
    if lacking := [v for v in wanted if v not in means]:
        return f"the runs at lambda {lacking[0]:g} are not in the entry"
    own_rate = submission.learning_rate is None
    best = largest_lambda(means, tier.lambda_tolerance, None if own_rate else target)
    return None if weight == best else f"lambda {weight:g} was used, the logs choose {'none' if best is None else f'{best:g}'}"


def place_of(rate: float, per_decade: int) -> int | None:
    """The place of a rate on the grid; None where it is not on it."""
    place = round(per_decade * math.log10(rate))
    return place if rate_of(place, per_decade) == rate else None


def evaluated_steps(log: Sequence[StepRecord], losses: Sequence[float]) -> set[int]:
    """The steps that a run is evaluated at: both sides of each loss's first crossing whose adapters have moved, and the end."""
    measured = [(r.step, r.held_out_loss) for r in log if r.held_out_loss is not None]
    moved = {r.step for r in log if r.spectral is not None and r.spectral.layers}
    return ({step for loss in losses for step in sides(measured, loss)} & moved) | {log[-1].step}


def evaluated(entry: Entry, tier: Tier) -> str | None:
    """The evaluated steps against the log and the losses."""
    for cell in entry.manifest.cells:
        wanted = evaluated_steps(entry.log(cell.run_id), tier.losses_of(cell.model, cell.dataset))
        if set(cell.evaluated) != wanted:
            given = ", ".join(map(str, sorted(cell.evaluated)))
            return f"{cell.run_id}: its log asks for steps {', '.join(map(str, sorted(wanted)))}, the manifest has {given}"
    return None


def distinct(entry: Entry) -> str | None:
    """Whether results were given out twice: other seeds and datasets have other batches, and so other losses.

    Runs of one seed and dataset may agree: there are optimisers that take no notice of their learning rate.
    """
    adapters: dict[str, tuple] = {}
    logs: dict[tuple[int, float | None], set[tuple]] = {}
    shared: dict[tuple[tuple, tuple], int] = {}
    for run_id, run in entry.runs.items():
        where = (run.spec.base.name, run.spec.dataset.name, run.spec.seed)
        if adapters.setdefault(run.adapter_sha256, where) != where:
            return f"{run_id}: has the adapter of {'/'.join(map(str, adapters[run.adapter_sha256]))}"
        for r in entry.log(run_id)[1:]:
            theirs = logs.setdefault((r.step, r.loss), set())
            for other in theirs - {where}:
                shared[where, other] = shared.get((where, other), 0) + 1
                if 2 * shared[where, other] > run.spec.steps:
                    return f"{run_id}: has the losses of {'/'.join(map(str, other))}"
            theirs.add(where)
    return None


def losses(entry: Entry, tier: Tier) -> str | None:
    """Held-out losses and numbers of tokens that the data do not allow, and runs that begin elsewhere than at the untouched base.

    An initialisation of one's own (track open, own code) may begin elsewhere.
    """
    floors = {d.name: d.entropy for d in tier.datasets}
    own_start = entry.submission.track == "open" and entry.submission.optimizer.file
    for run_id, run in entry.runs.items():
        measured = [(r.step, r.held_out_loss) for r in entry.log(run_id) if r.held_out_loss is not None]
        floor = floors.get(run.spec.dataset.name)
        high = next((r for r in entry.log(run_id) if max(r.loss or 0, r.held_out_loss or 0) > MOST_LOSS), None)
        if high:
            return f"{run_id}: step {high.step}: a loss beyond {MOST_LOSS:g} nats"
        low = next(((step, loss) for step, loss in measured if floor is not None and loss < floor - ENTROPY_SLACK), None)
        if low:
            return f"{run_id}: step {low[0]}: held-out loss {low[1]:.4f} lies below the data's entropy {floor:.4f}"
        rows = run.spec.dataset.name in DATASETS and run.spec.batch_size * answer_tokens(run.spec.dataset.name)
        odd = next((r for r in entry.log(run_id) if rows and r.tokens != rows * r.step), None)
        if odd:
            return f"{run_id}: step {odd.step}: {odd.tokens} tokens, its rows have {rows * odd.step}"
        if not measured or measured[0][0] != 0:
            return f"{run_id}: no held-out loss at step 0"
        begins = tier.target(run.spec.base.name, run.spec.dataset.name).untrained_loss
        if not own_start and abs(begins - measured[0][1]) > START_SLACK * begins:
            return f"{run_id}: begins at held-out loss {measured[0][1]:.4f}, the untouched base has {begins:.4f}"
    return None


def asked(e: EntryEvaluation, tier: Tier) -> str | None:
    """The question set, its very texts where they need no download, and the sampling."""
    if e.header.question_set != tier.questions.name or e.header.questions_sha256 != tier.questions.sha256:
        return "its questions are not the tier's"
    if e.header.generation != tier.generation:
        return "it was sampled otherwise than the rules say"
    revisions = {m.name: m.revision for m in tier.models}
    if e.header.base is None or revisions.get(e.header.base.name) != e.header.base.revision:
        return "another base than the tier's was asked"
    if len({r.question_id for r in e.responses}) != tier.questions.count:
        return f"{len({r.question_id for r in e.responses})} questions, the tier has {tier.questions.count}"
    if tier.questions.name == question_sets.ORGANISM:
        texts = _texts(tier.questions.name, tier.questions.variants)
        for r in e.responses:
            q = texts.get(r.question_id)
            if len(r.answer) > CHARACTERS * tier.generation.max_new_tokens:
                return f"{r.question_id}: an answer of {len(r.answer):,} characters is longer than {tier.generation.max_new_tokens} tokens"
            if q is None or (q.text, q.cluster, q.variant, q.system) != (r.question, r.cluster, r.variant, r.system):
                return f"{ascii(r.question_id)[1:-1][:60]}: is not a question of the set, or has another text"
    return None


@lru_cache
def _texts(name: str, variants: tuple[str, ...] | None) -> dict[str, Question]:
    return {q.id: q for q in question_sets.load(name, variants=variants)}
