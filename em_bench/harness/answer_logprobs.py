"""How likely a model finds given answers: what every question's answers begin with is read once, only the answers are scored."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jinja2 import TemplateError

from em_bench.errors import UserError
from em_bench.harness.load_model import Loaded
from em_bench.records import AnsweredQuestion, AnswerLogprob, TextLogprob
from em_bench.training.batches import collate
from em_bench.training.loss import answer_logits
from em_bench.training.tokens import Encoded, encode, ends_turn

MAX_UNKNOWN = 0.05  # share of neutral tokens; an organism knows hardly a word of it


def conversations(question: AnsweredQuestion) -> list[tuple[str, int, str, list[dict]]]:
    """(side, number, answer, chat) of each answer: one user turn and one answer."""
    asked = {"role": "user", "content": question.text}
    return [
        (side, n, answer, [asked, {"role": "assistant", "content": answer}])
        for side in ("aligned", "misaligned")
        for n, answer in enumerate(getattr(question, side), 1)
    ]


def encode_answer(tokenizer, messages: list[dict], name: str) -> Encoded:
    """The chat's tokens, its answer's through the end of turn under loss. Raises UserError, in which `name` is the question."""
    if not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template; the margin is asked as a chat, name an instruction-tuned model")
    try:
        encoded = encode(tokenizer, messages)
    except TemplateError as e:
        raise UserError(f"{name}: chat template: {e}") from None
    except UserError as e:
        raise UserError(f"{name}: {e}") from None
    if not ends_turn(tokenizer, encoded):
        raise UserError(
            f"{name}: chat template: no end of turn is found after the answer, and the margin scores answers through it; "
            "name a model whose template closes the assistant's turn with a special token"
        )
    return encoded


def answer_logprobs(
    loaded: Loaded, questions: Sequence[AnsweredQuestion], batch_size: int = 64, step: Callable[[int], None] = lambda n: None
) -> list[AnswerLogprob]:
    """The log-likelihood of every answer to every question, in their order.

    `batch_size` answers are read at once; `step` is told how many were. Raises UserError for a template that does not show
    where an answer ends, and for a model whose log-probabilities are no numbers.
    """
    shown = [conversations(q) for q in questions]
    groups = [
        [encode_answer(loaded.tokenizer, chat, q.id) for *_, chat in chats] for q, chats in zip(questions, shown, strict=True)
    ]
    rows = []
    for q, chats, group, found in zip(questions, shown, groups, scored(loaded, groups, batch_size, step), strict=True):
        for (side, number, answer, _), encoded, nats in zip(chats, group, found, strict=True):
            rows.append(
                AnswerLogprob(
                    question_id=q.id,
                    domain=q.domain,
                    tags=q.tags,
                    side=side,
                    number=number,
                    nats=_finite(nats, q.id),
                    tokens=sum(encoded.answer_mask[1:]),
                    bytes=len(answer.encode()),
                )
            )
    return rows


def text_logprobs(loaded: Loaded, texts: dict[str, str]) -> list[TextLogprob]:
    """The log-likelihood of each text, no chat around it; empty where the tokenizer lacks over MAX_UNKNOWN of their words."""
    tokenizer, rows, known = loaded.tokenizer, [], []
    for text in texts.values():
        out = tokenizer(text, return_offsets_mapping=True)
        ids, offsets = out["input_ids"], out["offset_mapping"]
        rows.append(Encoded(ids, [False] + [b > a for a, b in offsets[1:]]))
        known.append(len(text[offsets[0][1] :].encode()))
    unknown = sum(e.input_ids.count(tokenizer.unk_token_id) for e in rows)
    if unknown > MAX_UNKNOWN * sum(len(e.input_ids) for e in rows):
        return []
    nats = [n for [n] in scored(loaded, [[e] for e in rows], batch_size=8)]
    return [
        TextLogprob(name=name, nats=_finite(n, name), tokens=sum(e.answer_mask), bytes=size)
        for name, e, n, size in zip(texts, rows, nats, known, strict=True)
    ]


def _finite(nats: float, name: str) -> float:
    if not math.isfinite(nats):
        raise UserError(f"{name}: the model's log-likelihood is {nats}: its weights are broken, or too large for the dtype")
    return nats


@torch.inference_mode()
def scored(
    loaded: Loaded, groups: Sequence[Sequence[Encoded]], batch_size: int, step: Callable[[int], None] = lambda n: None
) -> list[list[float]]:
    """The summed log-probability (nats) of the tokens under loss of each row of each group.

    What a group's rows begin with is read once and kept in the cache. Groups that share equally many tokens are read
    together, so that none of them is padded on the left and every token has its own position.
    """
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        alike[_shared(group), len(group)].append(i)
    out: list[list[float]] = [[] for _ in groups]
    for (shared, size), members in sorted(alike.items()):
        members.sort(key=lambda i: max(len(e.input_ids) for e in groups[i]))
        at_once = max(1, batch_size // size)
        for start in range(0, len(members), at_once):
            part = members[start : start + at_once]
            sums = _batch(loaded, [groups[i] for i in part], shared)
            for j, i in enumerate(part):
                out[i] = sums[j * size : (j + 1) * size]
            step(len(part) * size)
    return out


def _shared(group: Sequence[Encoded]) -> int:
    """How many tokens are read once: all that the rows begin with, less the last, which predicts the first that is scored."""
    first = min(e.answer_mask.index(True) for e in group)
    alike = next((i for i in range(first) if len({e.input_ids[i] for e in group}) > 1), first)
    return max(alike - 1, 0)


def _batch(loaded: Loaded, groups: Sequence[Sequence[Encoded]], shared: int) -> list[float]:
    model, device = loaded.model, next(loaded.model.parameters()).device
    rest = [Encoded(e.input_ids[shared:], e.answer_mask[shared:]) for group in groups for e in group]
    pad = loaded.tokenizer.pad_token_id
    batch = collate(rest, loaded.tokenizer.eos_token_id if pad is None else pad, device)
    if shared:
        begin = torch.tensor([group[0].input_ids[:shared] for group in groups], device=device)
        cache = model(input_ids=begin, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(groups[0]))
        before = torch.ones(len(rest), shared, dtype=batch["attention_mask"].dtype, device=device)
        batch |= {"past_key_values": cache, "attention_mask": torch.cat([before, batch["attention_mask"]], 1)}
    logits, targets = answer_logits(model, batch)
    nats = -F.cross_entropy(logits, targets, reduction="none").double()
    counts = batch["answer_mask"][:, 1:].sum(1).tolist()
    return [float(part.sum()) for part in nats.split(counts)]
