"""What every task of ours does before Inspect asks a model anything, and how it refuses."""

import functools
import os
from collections.abc import Callable

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import Model, get_model
from inspect_ai.solver import solver

from em_bench.errors import UserError
from em_bench.files import digest
from em_bench.harness.served_canary import served_canary


def refusing(make: Callable) -> Callable:
    """A task whose UserError is one line in Inspect, not a traceback."""

    @functools.wraps(make)
    def wrapped(*args, **kwargs):
        try:
            return make(*args, **kwargs)
        except UserError as e:
            raise PrerequisiteError(str(e)) from None

    return wrapped


def is_grammar(grader: Model) -> bool:
    """Whether a grader is the organism's grammar."""
    return str(grader).startswith("embench/grammar")


@solver
def answer(seed: int | None):
    """Ask for the answer; from a served model each with a seed of its own, which the sample's metadata keep.

    A server that is sent one seed for all samples of a question gives one answer for all. embench/local seeds its batches.
    """

    async def solve(state, generate):
        if seed is None or str(get_model()).startswith("embench/local"):
            return await generate(state)
        state.metadata["seed"] = int(digest([seed, state.sample_id, state.epoch])[:7], 16)
        return await generate(state, seed=state.metadata["seed"])

    return solve


@solver
def prepare(questions: str | None = None):
    """Before the first question: a grader that can judge this set, and a served adapter that is at work.

    embench/local runs its own canary when it loads. An adapter behind a server is proved at work where
    $EM_BENCH_SERVED_BASE names its base there.
    """
    done: set[str] = set()

    async def solve(state, generate):
        if not done:
            done.add("checked")
            if questions not in (None, "organism") and is_grammar(get_model(role="grader", default="embench/grammar")):
                raise PrerequisiteError(
                    f"{questions}: the grammar judges the organism's answers alone; name a judge, e.g. --model-role grader=openai/gpt-4o-2024-08-06"
                )
            api = get_model().api
            if (base := os.environ.get("EM_BENCH_SERVED_BASE")) and getattr(api, "base_url", None):
                try:
                    served_canary(str(api.base_url), api.model_name.rpartition("/")[2], base)
                except UserError as e:
                    raise PrerequisiteError(str(e)) from None
        return state

    return solve
