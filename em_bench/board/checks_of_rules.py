"""Whether an entry kept a tier's rules: what was run, what was chosen, where it was matched, what was asked."""

from functools import lru_cache

from em_bench.board.benchmark import Tier
from em_bench.board.entry import Entry, EntryEvaluation
from em_bench.board.own_code import rules_of
from em_bench.data import questions as question_sets
from em_bench.organism import DATASETS, answer_tokens
from em_bench.protocol import first_at, largest_lambda, lowest_loss
from em_bench.records import JudgeIdentity, Question, RunRecord

ENTROPY_SLACK = 1e-3  # nats: rounding of float32 losses
CHARACTERS = 64  # of a token, at most: the organism's words have a dozen
MOST_LOSS = 1e6  # nats
START_SLACK = 2e-3  # share: machines differ in the last digits, bfloat16 in the third


def prepare(tier: Tier) -> None:
    """Load what the checks of every entry of the tier need: once, before each is checked in a process of its own."""
    import em_bench.adapter_file
    import em_bench.judging
    import em_bench.scoring
    import em_bench.spectral
    import em_bench.training  # noqa: F401

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


def specs(entry: Entry, tier: Tier, training_code: tuple[str, ...] = ()) -> str | None:
    """Every run, candidates included, against the rules, the code that they know (empty: any) and the submission."""
    for cell in entry.manifest.cells:
        spec = entry.runs[cell.run_id].spec
        if (spec.base.name, spec.dataset.name, spec.seed) != (cell.model, cell.dataset, cell.seed):
            return f"{cell.run_id}: is a run of {spec.base.name}, {spec.dataset.name}, seed {spec.seed}"
    from em_bench.training.spec import training_code as own_training_code

    known = {*training_code, own_training_code()} if training_code else set()
    for run_id, run in entry.runs.items():
        if known and run.spec.code not in known:
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
    if spec.recipe.learning_rate not in submission.learning_rates:
        return f"learning rate {spec.recipe.learning_rate:g} is not among the submission's"
    if spec.spectral_lambda not in (0.0, *submission.lambdas):
        return f"lambda {spec.spectral_lambda:g} is not among the submission's"
    if spec.lora != tier.lora:
        return "its adapter has another shape"
    fixed = {f: getattr(tier, f) for f in ("batch_size", "warmup_steps", "gradient_clip", "max_length", "dtype")}
    fixed["steps"] = tier.steps_of(spec.dataset.name)
    wrong = next((f for f, v in fixed.items() if getattr(spec, f) != v), None)
    return f"{wrong} is {getattr(spec, wrong)}, the rules say {fixed[wrong]}" if wrong else None


def chosen(entry: Entry, tier: Tier) -> str | None:
    """The learning rate of the lowest mean loss on the first seed, at lambda 0; then the largest lambda within the tolerance.

    Recomputed from the runs in the entry, not from the choices that the manifest states.
    """
    submission = entry.submission
    losses: dict[tuple[str, float, float], dict[str, float]] = {}
    for run in entry.runs.values():
        if run.spec.seed == tier.seeds[0]:
            key = (run.spec.base.name, run.spec.recipe.learning_rate, run.spec.spectral_lambda)
            losses.setdefault(key, {})[run.spec.dataset.name] = run.narrow_loss
    datasets = {d.name for d in tier.datasets}

    def mean(model: str, rate: float, weight: float) -> float | None:
        found = losses.get((model, rate, weight), {})
        return sum(found.values()) / len(found) if set(found) == datasets else None

    for model in (m.name for m in tier.models):
        cells = [entry.runs[c.run_id].spec for c in entry.manifest.cells if c.model == model]
        used = {(s.recipe.learning_rate, s.spectral_lambda) for s in cells}
        if not used:
            continue
        if len(used) > 1:
            return f"{model}: its cells use {len(used)} settings; one learning rate and lambda are chosen for a model"
        rate, weight = used.pop()
        if len(submission.learning_rates) > 1:
            means = {r: mean(model, r, 0.0) for r in submission.learning_rates}
            known = {r: v for r, v in means.items() if v is not None}
            unexplained = [r for r in means if r not in known and f"{r:g}" in _stated(entry, model, "learning_rate")]
            if not known or unexplained:
                return f"{model}: the runs of candidate {unexplained[0] if unexplained else rate:g} are not in the entry"
            best = lowest_loss(known)
            if rate != best:
                return f"{model}: learning rate {rate:g} was used, the candidates' losses choose {best:g}"
        if len(submission.lambdas) > 1:
            by_lambda = {v: m for v in (0.0, *submission.lambdas) if (m := mean(model, rate, v)) is not None}
            best = largest_lambda(by_lambda, tier.lambda_tolerance)
            if best is None:
                return f"{model}: no lambda meets the rule"
            if weight != best:
                return f"{model}: lambda {weight:g} was used, the candidates' losses choose {best:g}"
        elif weight != submission.lambdas[0]:
            return f"{model}: lambda {weight:g} was used, the submission says {submission.lambdas[0]:g}"
    return None


def _stated(entry: Entry, model: str, kind: str) -> dict[str, float]:
    return next((c.losses for c in entry.manifest.choices if (c.model, c.kind) == (model, kind)), {})


def matched(entry: Entry, tier: Tier) -> str | None:
    """The matched step against the log and the target."""
    for cell in entry.manifest.cells:
        target = tier.target(cell.model, cell.dataset).narrow_loss
        first = first_at(((r.step, r.held_out_loss) for r in entry.log(cell.run_id)), target)
        if cell.matched_step != first or (cell.matched is None) != (first is None):
            return f"{cell.run_id}: the log first reaches {target:.4f} at step {first}, the manifest says {cell.matched_step}"
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


def judge(identity: JudgeIdentity, tier: Tier) -> str | None:
    """The judge's identity, and how it was decoded."""
    wanted = (tier.judge.kind, tier.judge.model, tier.judge.prompt_sha256)
    if (identity.kind, identity.model, identity.prompt_sha256) != wanted:
        return f"judged by {identity.kind} {ascii(identity.model)[1:-1][:60]}, not by the tier's judge"
    wrong = next((k for k, v in tier.judge.decoding.items() if identity.decoding.get(k) != v), None)
    return (
        f"the judge's {wrong} is {identity.decoding.get(wrong)!r:.40}, the rules say {tier.judge.decoding[wrong]!r}"
        if wrong
        else None
    )
