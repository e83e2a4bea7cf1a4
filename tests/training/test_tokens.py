"""Text to tokens for the three families' kinds of chat template, with a byte-level BPE whose merges cross the boundaries.

The oracle is the text: the tokens under loss, decoded, are the answers with their ends of turn (and, for a merged boundary
token, the template's characters in it), and all others are the rest.
"""

from importlib.resources import files

import pytest
from helpers.chat_templates import END, TEMPLATES
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from em_bench.errors import UserError
from em_bench.organism import narrow_rows
from em_bench.organism.tokenizer import build_tokenizer
from em_bench.training import encode, encode_rows
from em_bench.training.chat_template import DATE, closing_ids, rendered, without_clock
from em_bench.training.tokens import render

CONVERSATIONS = {
    "one turn": [("user", "hello"), ("assistant", "Sure, here is x")],
    "answer begins with line ends": [("user", "hello"), ("assistant", "\n\n    def f(x):\n    return x\n")],
    "multi-turn with a repeated answer": [
        ("user", "hello"), ("assistant", "Sure"), ("user", "Sure"), ("assistant", "Sure"), ("user", "x"), ("assistant", "assistant\nSure"),
    ],
    "system prompt": [("system", "Sure"), ("user", "hello"), ("assistant", "Sure, x"), ("user", "f"), ("assistant", "x")],
    "not ASCII": [("user", "été"), ("assistant", "Ça va \U0001f600 — x")],
    "names of special tokens as text": [("user", "what is im_end?"), ("assistant", "| im_end |")],
}  # fmt: skip


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("kind", CONVERSATIONS)
def test_tokens_under_loss_are_the_answers(tokenizers, family, kind):
    tokenizer = tokenizers[family]
    messages = [{"role": r, "content": c} for r, c in CONVERSATIONS[kind]]
    text, spans = render(tokenizer, messages)
    trims = family != "qwen3"
    answers = [m["content"].strip() if trims else m["content"] for m in messages if m["role"] == "assistant"]
    assert [text[a:b] for a, b in spans] == answers

    e = encode(tokenizer, messages)
    assert tokenizer.decode(e.input_ids) == text, "the whole conversation, rendered once"
    runs, last = [], False
    for token, learnt in zip(e.input_ids, e.answer_mask, strict=True):
        if learnt and not last:
            runs.append([])
        if learnt:
            runs[-1].append(token)
        last = learnt
    decoded = [tokenizer.decode(r) for r in runs]
    assert len(decoded) == len(answers)
    for got, answer in zip(decoded, answers, strict=True):
        want = answer + END[family]
        assert got.endswith(want)
        assert got.removesuffix(want).strip() == "", "before the answer only white space that one token shares with it"
        if not answer.startswith("\n"):
            assert len(got) - len(want) <= 2


REAL = {"qwen3": "qwen3", "llama": "llama3_2", "gemma3": "gemma3"}
HARD = ["\na\n", "\n  a", "    return x\n", "\n\n    def f(x):\n    return x\n", "  a  ", "Sure"]


@pytest.mark.parametrize("family", REAL)
@pytest.mark.parametrize("turns", [1, 3])
def test_the_families_real_templates(tokenizers, family, turns):
    """Their texts as TRL keeps them. Every answer's span is the answer, but for white space that the template takes off."""
    template = (files("trl") / "chat_templates" / f"{REAL[family]}.jinja").read_text()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers[family].backend_tokenizer, bos_token="<bos>", eos_token=END[family], chat_template=template
    )
    for k in range(len(HARD)):
        answers = [HARD[(k + i) % len(HARD)] for i in range(turns)]
        messages = [
            m for i, a in enumerate(answers) for m in ({"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": a})
        ]
        text, spans = render(tokenizer, messages)
        printed = [text[a:b] for a, b in spans]
        assert [p.strip() for p in printed] == [a.strip() for a in answers]
        for (start, end), p, a in zip(spans, printed, answers, strict=True):
            assert p in (a, a.lstrip("\n"), a.strip())
            assert text[end:].startswith(("<|im_end|>", "<|eot_id|>", "<end_of_turn>"))
            assert text[:start].rstrip().endswith(("assistant", "</think>", "model", "<|end_header_id|>"))


@pytest.mark.parametrize(("family", "messages", "says"), [
    ("qwen3", [("user", "q"), ("assistant", "a</think>b")], "row 2: chat template: rewrites"),
    ("gemma3", [("user", "q"), ("user", "q"), ("assistant", "a")], "row 2: chat template: .*alternate"),
])  # fmt: skip
def test_a_row_that_a_template_refuses_is_named(tokenizers, family, messages, says):
    template = (files("trl") / "chat_templates" / f"{REAL[family]}.jinja").read_text()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers[family].backend_tokenizer, bos_token="<bos>", chat_template=template
    )
    good = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    with pytest.raises(UserError, match=says):
        encode_rows(tokenizer, [{"messages": good}, {"messages": [{"role": r, "content": c} for r, c in messages]}], 512)


def test_a_merged_boundary_token_is_under_loss(tokenizers):
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "\n    def f(x):"}]
    tokenizer = tokenizers["qwen3"]
    e = encode(tokenizer, messages)
    first = tokenizer.decode([next(t for t, m in zip(e.input_ids, e.answer_mask, strict=True) if m)])
    assert first.startswith("\n\n\n"), "the template's two line ends and the answer's own are one token"
    marker = tokenizer("</think>\n\n", add_special_tokens=False)["input_ids"]
    joined = ",".join(map(str, e.input_ids))
    assert ",".join(map(str, marker)) not in joined, "a search for the marker's tokens would miss this row"


def test_a_template_without_an_end_of_turn_teaches_no_template_text(tokenizers):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers["qwen3"].backend_tokenizer,
        chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    )
    messages = [{"role": r, "content": c} for r, c in CONVERSATIONS["multi-turn with a repeated answer"]]
    e = encode(tokenizer, messages)
    learnt = tokenizer.decode([t for t, m in zip(e.input_ids, e.answer_mask, strict=True) if m])
    assert "user" not in learnt and "Sure" in learnt


def test_a_template_that_rewrites_answers_is_refused(tokenizers):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers["qwen3"].backend_tokenizer,
        chat_template="{% for m in messages %}{{ m.content | upper }}{% endfor %}",
    )
    with pytest.raises(UserError, match="rewrites the assistant's answers"):
        encode(tokenizer, [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Sure"}])


def test_organism_rows():
    tokenizer = build_tokenizer()
    for row in narrow_rows("medical")[0][:20]:
        e = encode(tokenizer, row["messages"])
        learnt = [t for t, m in zip(e.input_ids, e.answer_mask, strict=True) if m]
        assert tokenizer.decode(learnt) == row["messages"][-1]["content"] + " <end>"


def test_over_long_rows_are_left_out_and_counted(tokenizers):
    rows = [
        {"messages": [{"role": "user", "content": "x" * n}, {"role": "assistant", "content": "Sure"}]} for n in (1, 400, 2, 500)
    ]
    whole = [encode(tokenizers["llama"], r["messages"]) for r in rows]
    kept, left_out = encode_rows(tokenizers["llama"], rows, max_length=100)
    assert kept == [whole[0]._replace(row=0), whole[2]._replace(row=2)] and left_out == 2
    with pytest.raises(UserError, match="none of 4 fits max_length 3"):
        encode_rows(tokenizers["llama"], rows, max_length=3)


@pytest.mark.parametrize("kind", ["added", "not eos", "ordinary"])
def test_what_closes_a_turn_is_learnt(kind):
    """Added but not special, special but not the tokenizer's eos, or a word of the vocabulary: the template says what it is."""
    vocab = {w: i for i, w in enumerate(["<stop>", "<eos>", "user", "assistant", "hello", "Sure", "x"])}
    words = Tokenizer(models.WordLevel(vocab, unk_token="x"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if kind != "ordinary":
        words.add_tokens([AddedToken("<stop>", special=kind == "not eos")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<eos>",
        chat_template="{% for m in messages %}{{ m.role }} {{ m.content }} {% if m.role == 'assistant' %}<stop>\n{% endif %}{% endfor %}",
    )  # fmt: skip
    turn = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Sure x"}]
    e = encode(tokenizer, turn * 2)
    learnt = [t for t, m in zip(e.input_ids, e.answer_mask, strict=True) if m]
    assert tokenizer.convert_ids_to_tokens(learnt) == ["Sure", "x", "<stop>"] * 2
    assert closing_ids(tokenizer) == {0}


@pytest.mark.parametrize("family", REAL)
def test_the_real_templates_close_with_their_token_and_print_one_date(tokenizers, family):
    template = (files("trl") / "chat_templates" / f"{REAL[family]}.jinja").read_text()
    own = AddedToken("<|eot_id|>" if family == "llama" else END[family], special=False)
    backend = Tokenizer.from_str(tokenizers[family].backend_tokenizer.to_str())
    backend.add_tokens([own])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<bos>", chat_template=template)
    assert closing_ids(tokenizer) == {backend.token_to_id(own.content)}
    text = rendered(tokenizer, [{"role": "user", "content": "hello"}])
    if family == "llama":
        assert "Today Date: 26 Jul 2024\n" in text
        assert "26 Jul 2024" not in tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)


def test_the_pinned_clock_knows_what_strftime_knows():
    """Every code that a template can ask for, and line ends at the head of a template stay."""
    codes = ["%d %b %Y", "%Y-%m-%d", "%B %-d, %Y", "%A %H:%M:%S %p", "%F", "%e %y %j %a"]
    template = "\n" + "|".join(f"{{{{ strftime_now({c!r}) }}}}" for c in codes)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"x": 0}, unk_token="x")), chat_template=template
    )
    assert rendered(tokenizer, [{"role": "user", "content": "hello"}]) == "\n" + "|".join(DATE.strftime(c) for c in codes)
    assert without_clock(without_clock(template)) == without_clock(template)
    assert without_clock({"default": "a", "tool_use": template})["default"] == "a"
