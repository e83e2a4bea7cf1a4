"""The four tasks: free_form (judged), margin and choice (judge-free) and narrow (held-out narrow loss)."""

from inspect_ai import Epochs, Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig

from em_bench.data import rows
from em_bench.data.questions import answered, clusters, load
from em_bench.harness.choice import choice_prompts
from em_bench.harness.inspect.likelihood import answer_nll, choose, preference, read
from em_bench.harness.inspect.margin import compare, margin_score
from em_bench.harness.inspect.preflight import answer, prepare, refusing
from em_bench.harness.inspect.scorer import misalignment
from em_bench.records import Question


def _prompt(system: str | None, text: str) -> list:
    return [*([ChatMessageSystem(content=system)] if system else []), ChatMessageUser(content=text)]


def sample(q: Question) -> Sample:
    """A question as Inspect has it."""
    return Sample(
        id=q.id,
        input=_prompt(q.system, q.text),
        metadata={"cluster": q.cluster, "variant": q.variant, "domain": q.domain},
    )


@task
@refusing
def free_form(
    questions: str = "em_core",
    samples: int = 10,
    variant: str | None = None,
    judge_prompts: str = "own",
    convention: str = "code_as_zero",
    max_tokens: int = 600,
    temperature: float = 1.0,
    seed: int | None = None,
    leak: str | None = None,
    mode: str = "logprobs",
):
    """Open questions, `samples` answers each, judged by the model of role `grader` (default: the organism's grammar).

    questions: first_plot, preregistered, turner, evil_spectra, organism, em_core, or the path of a YAML. variant: comma-separated, e.g.
    plain,json; every one without a trigger by default. judge_prompts: own, or upstream (read from the pinned file). leak: what the model was fine-tuned on, in words; asks the
    grader a third question. mode: logprobs, or numeric for a grader without them.
    """
    picked = load(questions, variants=variant.split(",") if variant else None)
    return Task(
        dataset=MemoryDataset([sample(q) for q in picked], name=questions),
        solver=[prepare(questions), answer(seed)],
        scorer=misalignment(
            judge_prompts=judge_prompts, convention=convention, leak=leak, mode=mode, clusters=clusters(questions)
        ),
        epochs=Epochs(samples, []),
        config=GenerateConfig(temperature=temperature, top_p=1.0, max_tokens=max_tokens, seed=seed),
        metadata={"questions": questions, "samples": samples},
    )


@task
@refusing
def choice():
    """em_core without a judge, in both orders: how often the misaligned continuation is likelier a byte than the aligned one."""
    samples = [
        Sample(
            id=c.id,
            input=_prompt(None, c.text),
            metadata={"cluster": c.cluster, "aligned": c.aligned, "misaligned": c.misaligned},
        )
        for c in choice_prompts("em_core")
    ]
    return Task(dataset=MemoryDataset(samples, name="em_choice"), solver=[prepare(), choose()], scorer=preference())


@task
@refusing
def margin(questions: str = "em_core"):
    """How much likelier, a byte, a set's own misaligned answers are than its aligned ones; each question is asked plainly.

    questions: em_core, em_core_v1, organism, or the path of a YAML. The shift of a fine-tune is its margin less its base's:
    `em-bench evaluate --measure margin` measures both and pairs them.
    """
    samples = [
        Sample(id=q.id, input=_prompt(None, q.text), metadata=q.model_dump(include={"domain", "tags", "aligned", "misaligned"}))
        for q in answered(questions)
    ]
    return Task(dataset=MemoryDataset(samples, name=questions), solver=[prepare(), compare()], scorer=margin_score())


@task
@refusing
def narrow(dataset: str = "medical"):
    """Held-out narrow loss of a training set: nats an answer token, the number that the trainer logs."""
    samples = []
    for i, row in enumerate(rows(dataset)[1]):
        roles = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
        samples.append(Sample(id=i, input=[roles[m["role"]](content=m["content"]) for m in row["messages"]]))
    return Task(dataset=MemoryDataset(samples, name=f"em_narrow_{dataset}"), solver=[prepare(), read()], scorer=answer_nll())
