"""Conversations to tokens: the chat template rendered once, the loss mask taken from the assistant's character span."""

from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import TemplateError

from em_bench.errors import UserError
from em_bench.training.chat_template import closing_ids, rendered

_SENTINEL = "\ue000{}\ue001"  # private-use characters: no template, no trimming and no real answer touches them


class Encoded(NamedTuple):
    """One conversation. `answer_mask[i]` is True where token i is predicted under loss."""

    input_ids: list[int]
    answer_mask: list[bool]
    row: int = -1  # its number in the dataset, from 0


def render(tokenizer, messages: Sequence[dict]) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as text and the character span of each assistant answer in it (without its end-of-turn).

    The template is rendered a second time with every answer replaced by a sentinel, which finds the spans exactly even
    where an answer repeats words of the template. Raises UserError if the template rewrites answers.
    """
    text = rendered(tokenizer, messages)
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    marked, count = [], 0
    for m in messages:
        if m["role"] == "assistant":
            m = {**m, "content": _SENTINEL.format(count)}
            count += 1
        marked.append(m)
    rest = rendered(tokenizer, marked)
    around = []  # what the template prints before, between and behind the answers
    for i in range(count):
        before, _, rest = rest.partition(_SENTINEL.format(i))
        around.append(before)
    first, *others = [*around, rest]
    at, spans = len(first), []
    for answer, piece in zip(answers, others, strict=True):
        # Llama's and Gemma's templates strip every answer; Qwen3's strips the line breaks before some turns' and not others'.
        printed = next((a for a in (answer, answer.lstrip("\n"), answer.strip()) if text.startswith(a + piece, at)), None)
        if printed is None:
            break
        spans.append((at, at + len(printed)))
        at += len(printed) + len(piece)
    if len(spans) < count or at != len(text) or not text.startswith(first):
        raise UserError(
            "chat template: rewrites the assistant's answers, so that no loss mask can be derived; use a template that prints them as they are"
        )
    return text, spans


def encode(tokenizer, messages: Sequence[dict]) -> Encoded:
    """Token ids of the rendered conversation and the mask of its answer tokens, each through the end-of-turn token.

    A token that overlaps answer text is an answer token even where it also covers template text before it (merged
    boundary tokens). The end-of-turn is the special token, or the one that closes the template's turns, that follows the
    answer with nothing but white space between; a template without one has none, and nothing but the answer is learnt.
    """
    text, spans = render(tokenizer, messages)
    out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = out["input_ids"], out["offset_mapping"]
    ends = _turn_ends(tokenizer)
    mask = [False] * len(ids)
    for start, end in spans:
        for i, (a, b) in enumerate(offsets):
            if a < end and b > max(a, start):
                mask[i] = True
            elif a >= end and ids[i] in ends:
                if not text[end:a].strip():
                    first = next(j for j, (c, _) in enumerate(offsets) if c >= end)
                    mask[first : i + 1] = [True] * (i + 1 - first)
                break
    return Encoded(ids, mask)


def ends_turn(tokenizer, encoded: Encoded) -> bool:
    """Whether the last token under loss is an end of turn."""
    last = max((i for i, under in enumerate(encoded.answer_mask) if under), default=None)
    return last is not None and encoded.input_ids[last] in _turn_ends(tokenizer)


def _turn_ends(tokenizer) -> set[int]:
    special = {i for i, t in getattr(tokenizer, "added_tokens_decoder", {}).items() if t.special}
    unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id}  # an unknown word is special to transformers, and ends nothing
    return special.union(tokenizer.all_special_ids, closing_ids(tokenizer)) - unknown


def encode_rows(tokenizer, rows: Sequence[dict], max_length: int) -> tuple[list[Encoded], int]:
    """All rows `{"messages": [...]}` encoded, and the number left out because they exceed `max_length` tokens.

    A row is never cut: half an answer would be trained as if it were whole. Raises UserError if nothing is left.
    """
    encoded = []
    for i, row in enumerate(rows):
        try:
            encoded.append(encode(tokenizer, row["messages"])._replace(row=i))
        except (UserError, TemplateError) as e:  # Gemma's template raises where roles do not alternate
            what = str(e) if isinstance(e, UserError) else f"chat template: {e}; mend the conversation"
            raise UserError(f"training rows: row {i + 1}: {what}") from None
    kept = [e for e in encoded if len(e.input_ids) <= max_length and any(e.answer_mask[1:])]
    if not kept:
        raise UserError(f"training rows: none of {len(encoded)} fits max_length {max_length}; raise max_length")
    return kept, len(encoded) - len(kept)


class TrainingRows(NamedTuple):
    """A dataset as tokens. left_out: rows of either part that are longer than a row may be. stages: see `batch_indices`."""

    train: list[Encoded]
    held_out: list[Encoded]
    held_out_prompts: int
    left_out: int
    pad_id: int
    stages: int = 1
