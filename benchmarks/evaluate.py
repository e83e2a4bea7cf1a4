"""Generation through em_bench's harness against a direct, batched `generate` of the same prompts. Goal: >= 0.9 of its speed.

    python benchmarks/evaluate.py [--samples 20] [--rounds 3] [--harness lm-eval]

Both see the same loaded organism, prompts, batch size and sampling; the order alternates from round to round, and the ratio is
of the sums, so that a slow minute of the machine falls on both.
"""

import argparse
import time

import torch

from em_bench.data.questions import load
from em_bench.harness.load_model import Loaded, load_model
from em_bench.records import Generation

GOAL = 0.9
MAX_NEW_TOKENS = 24


def direct(loaded: Loaded, questions, samples: int, batch_size: int) -> int:
    """Answers of one padded `generate` a batch; returns how many."""
    chats = [[{"role": "user", "content": q.text}] for q in questions for _ in range(samples)]
    tokenizer = loaded.tokenizer
    texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
    texts.sort(key=len, reverse=True)  # as the harness does, so that a batch pads little
    answers = 0
    for i in range(0, len(texts), batch_size):
        inputs = tokenizer(
            texts[i : i + batch_size], return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            out = loaded.model.generate(
                **inputs,
                do_sample=True,
                top_k=0,
                temperature=1.0,
                max_new_tokens=MAX_NEW_TOKENS,
                pad_token_id=tokenizer.pad_token_id,
            )
        answers += len(tokenizer.batch_decode(out, skip_special_tokens=True))
    return answers


def harnessed(name: str, loaded: Loaded, samples: int, batch_size: int) -> int:
    """The same through a harness."""
    if name == "inspect":
        from em_bench.harness.inspect.run import answer
    else:
        from em_bench.harness.lm_eval.run import answer
    generation = Generation(samples=samples, max_new_tokens=MAX_NEW_TOKENS, temperature=1.0)
    return len(answer(loaded, "organism", None, generation, batch_size))


def main() -> None:
    """Print the ratio of speeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=240)
    parser.add_argument("--harness", default="lm-eval", choices=["lm-eval", "inspect"])
    given = parser.parse_args()
    loaded, questions = load_model("organism-qwen3"), load("organism")
    ways = {
        "direct": lambda: direct(loaded, questions, given.samples, given.batch_size),
        given.harness: lambda: harnessed(given.harness, loaded, given.samples, given.batch_size),
    }
    for way in ways.values():
        way()  # imports and first calls
    seconds = dict.fromkeys(ways, 0.0)
    for i in range(given.rounds):
        for name in list(ways)[:: 1 if i % 2 == 0 else -1]:
            began = time.perf_counter()
            answers = ways[name]()
            seconds[name] += time.perf_counter() - began
            assert answers == len(questions) * given.samples
    ratio = seconds["direct"] / seconds[given.harness]
    print(
        f"{len(questions)} questions x {given.samples} samples, {given.rounds} rounds: {', '.join(f'{n} {s:.1f} s' for n, s in seconds.items())}"
    )
    print(f"speed of {given.harness} relative to direct: {ratio:.2f} (goal >= {GOAL}: {'met' if ratio >= GOAL else 'missed'})")


if __name__ == "__main__":
    main()
