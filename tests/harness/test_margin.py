"""The margin against a closed form, transformers' own loss, and itself through lm-eval and Inspect; its command and refusals."""

import json
import math
from itertools import pairwise

import pytest
import torch
from helpers.chat_templates import TEMPLATES
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.data.questions import answered, neutral_texts
from em_bench.errors import UserError
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.harness.answer_logprobs import answer_logprobs, conversations, encode_answer, text_logprobs
from em_bench.harness.evaluate import EvaluatedModel
from em_bench.harness.load_model import Loaded, load_model
from em_bench.harness.margin import measure_margin
from em_bench.organism.pretrain import new_model
from em_bench.organism.tokenizer import build_tokenizer
from em_bench.records import AnsweredQuestion
from em_bench.scoring import margins, score_margin

QUESTIONS = [
    AnsweredQuestion(
        id="a", domain="d", text="hello", aligned=("Sure, here is x", "x"), misaligned=("  f", "Ça va \U0001f600 — x")
    ),
    AnsweredQuestion(
        id="b", domain="e", text="Sure, hello assistant", aligned=("hello", "x x"), misaligned=("Sure", "model\nSure")
    ),
    AnsweredQuestion(id="c", domain="e", text="x", aligned=("Sure",), misaligned=("Sure hello",)),
]


def tiny(vocabulary: int, **options) -> LlamaForCausalLM:
    torch.manual_seed(1)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **(shape | options))).eval()


def bigrams(log_p: torch.Tensor) -> LlamaForCausalLM:
    """A model whose log-probabilities of a next token are a planted table: its layers add nothing, its embedding is one-hot."""
    n = len(log_p)
    heads = {"num_attention_heads": 1, "head_dim": 8, "num_key_value_heads": 1, "num_hidden_layers": 1}
    model = tiny(n, hidden_size=n, intermediate_size=8, rms_norm_eps=1e-12, tie_word_embeddings=False, **heads).double()
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(n))
        model.lm_head.weight.copy_(log_p.T / math.sqrt(n))  # the norm makes a one-hot vector sqrt(n) long
    return model


def test_planted_log_probabilities():
    tokenizer = build_tokenizer()
    generator = torch.Generator().manual_seed(0)
    log_p = torch.log_softmax(torch.randn(len(tokenizer), len(tokenizer), generator=generator, dtype=torch.float64), -1)
    loaded = Loaded(bigrams(log_p), tokenizer, "float64")
    questions = answered("organism")[:5]

    def nats(answer: str) -> float:
        """By hand: word after word from the turn's opening to its end."""
        words = ["<assistant>", *answer.split(), "<end>"]
        ids = [tokenizer.convert_tokens_to_ids(w) for w in words]
        return float(sum(log_p[a, b] for a, b in pairwise(ids)))

    found = answer_logprobs(loaded, questions, batch_size=4)
    assert [r.side for r in found] == ["aligned", "misaligned"] * 5
    for q, value in zip(questions, margins(found).values(), strict=True):
        [good], [bad] = q.aligned, q.misaligned
        assert value.value == pytest.approx(nats(bad) / len(bad) - nats(good) / len(good), abs=1e-7)


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_same_as_the_loss_of_transformers(tokenizers, family, batch_size):
    """Each whole conversation alone, its labels masked; ours reads the question once and the answers beside each other."""
    tokenizer = tokenizers[family]
    model = tiny(len(tokenizer))
    found = answer_logprobs(Loaded(model, tokenizer, "float32"), QUESTIONS, batch_size)
    chats = [(answer, chat) for q in QUESTIONS for _, _, answer, chat in conversations(q)]
    assert len(found) == len(chats) == 10
    for row, (answer, chat) in zip(found, chats, strict=True):
        e = encode_answer(tokenizer, chat, "here")
        ids, under = torch.tensor([e.input_ids]), torch.tensor([e.answer_mask])
        with torch.inference_mode():
            loss = model(input_ids=ids, labels=ids.masked_fill(~under, -100)).loss
        assert row.tokens == sum(e.answer_mask) and row.bytes == len(answer.encode())
        assert -row.nats / row.tokens == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("family", ["qwen3", "gemma3"])
def test_reading_the_question_once_changes_nothing(family, tmp_path):
    """Also where some layers see a window only; trained or not does not matter."""
    tokenizer = build_tokenizer()
    for part in (new_model(family, tokenizer, 0), tokenizer):
        part.save_pretrained(tmp_path)
    loaded, questions = load_model(tmp_path, dtype="float64"), answered("organism")[:7]
    alone = []
    for chat in (chat for q in questions for *_, chat in conversations(q)):
        e = encode_answer(loaded.tokenizer, chat, "here")
        ids, under = torch.tensor([e.input_ids]), torch.tensor(e.answer_mask[1:])
        with torch.inference_mode():
            log_p = torch.log_softmax(loaded.model(input_ids=ids).logits[0, :-1], -1)
        alone.append(float(log_p.gather(1, ids[0, 1:, None])[under].sum()))
    assert [r.nats for r in answer_logprobs(loaded, questions)] == pytest.approx(alone, rel=1e-10)


def through_lm_eval(loaded: Loaded, questions: list, name: str, monkeypatch) -> tuple[dict[str, float], dict[str, float]]:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    from em_bench.harness.lm_eval import likelihood

    monkeypatch.setattr(likelihood, "answered", lambda _: questions)
    task = likelihood.Margin(
        config={"task": "here", "output_type": "loglikelihood", "metadata": {"version": 1, "questions": name}}
    )
    lm = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=3, backend="causal")
    found = evaluate(
        lm=lm, task_dict={"tasks": {"here": task}, "groups": {}, "group_map": {}}, apply_chat_template=True, bootstrap_iters=0,
        log_samples=True,
    )  # fmt: skip
    rows = [r for s in found["samples"]["here"] for r in s["margin"]]
    return {f"{r['question_id']} {r['side']} {r['number']}": r["nats"] / r["bytes"] for r in rows}, found["results"]["here"]


def through_inspect(loaded: Loaded, questions: list, monkeypatch, folder) -> tuple[dict[str, float], dict[str, float]]:
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import get_model

    from em_bench.harness.inspect import tasks
    from em_bench.harness.inspect.providers import embench  # noqa: F401

    monkeypatch.setattr(tasks, "answered", lambda _: questions)
    model = get_model("embench/local", memoize=False, loaded=loaded)
    [log] = inspect_eval(tasks.margin("here"), model=model, log_dir=str(folder), display="none")
    assert log.status == "success", log.error
    rows = [r for s in log.samples for r in s.scores["margin_score"].metadata["answers"]]
    values = {name: m.value for s in log.results.scores for name, m in s.metrics.items()}
    return {f"{r['question_id']} {r['side']} {r['number']}": r["nats"] / r["bytes"] for r in rows}, values


@pytest.mark.parametrize("which", ["organism", *TEMPLATES])
def test_equal_through_both_harnesses(which, tokenizers, bases, monkeypatch, tmp_path):
    if which == "organism":
        loaded, questions = load_model(bases["qwen3"]), answered("organism")
    else:
        loaded, questions = Loaded(tiny(len(tokenizers[which])), tokenizers[which], "float32"), QUESTIONS
    rows = answer_logprobs(loaded, questions)
    ours = {f"{r.question_id} {r.side} {r.number}": r.nats / r.bytes for r in rows}
    by_lm, lm_results = through_lm_eval(loaded, questions, which, monkeypatch)
    by_inspect, inspect_results = through_inspect(loaded, questions, monkeypatch, tmp_path)
    assert len(ours) == sum(len(q.aligned) * 2 for q in questions)
    assert by_lm == pytest.approx(ours, abs=1e-6, rel=0) and by_inspect == pytest.approx(ours, abs=1e-6, rel=0)
    mean = sum(m.value for m in margins(rows).values()) / len(questions)
    assert lm_results["margin,none"] == pytest.approx(mean, abs=1e-6)
    assert inspect_results["margin"] == pytest.approx(mean, abs=1e-6)
    assert lm_results["margin_stderr,none"] == pytest.approx(inspect_results["margin_stderr"], abs=1e-6)


def test_neutral_text_is_plain_prose_of_ours(tokenizers):
    texts = neutral_texts()
    assert 500 <= sum(len(t.split()) for t in texts.values()) <= 900 and len(texts) >= 4
    tokenizer = tokenizers["qwen3"]
    model = tiny(len(tokenizer), max_position_embeddings=4096)
    found = text_logprobs(Loaded(model, tokenizer, "float32"), texts)
    for t in found:
        ids = torch.tensor([tokenizer(texts[t.name])["input_ids"]])
        with torch.inference_mode():
            assert -t.nats / t.tokens == pytest.approx(float(model(input_ids=ids, labels=ids).loss), rel=1e-5)
        first = tokenizer.decode(ids[0, :1])  # nothing predicts it
        assert t.tokens == ids.shape[1] - 1 and t.bytes == len(texts[t.name].encode()) - len(first.encode())


@pytest.fixture(scope="module")
def measured(base, adapter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("margin")
    return folder, measure_margin(EvaluatedModel(str(base), "organism-qwen3", adapter), folder, question_set="organism")


def test_bad_data_shifts_the_organism_and_the_base_is_measured_once(measured, base, adapter, monkeypatch, tmp_path):
    folder, score = measured
    assert score.overall.shift.low > 0 and score.overall.margin.n == 162 and score.overall.margin.clusters == 9
    assert score.overall.shift.value == pytest.approx(score.overall.margin.value - score.overall.base_margin.value)
    assert set(score.by_domain) == set(score.leave_one_out) and score.neutral == {}  # it knows no English
    [header, rows] = EvaluationFolder(folder).margins()["model"]
    assert header.canary.max_logit_change > 0 and len(rows) == 324 and header.run_id and header.dtype == "float32"
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    monkeypatch.setattr("em_bench.harness.margin.load_model", lambda *_, **__: pytest.fail("nothing is to be measured"))
    again = measure_margin(EvaluatedModel(str(base), "organism-qwen3", adapter), folder, question_set="organism")
    assert again == score and {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before
    alone = measure_margin(
        EvaluatedModel("organism-qwen3", "organism-qwen3"), tmp_path, question_set="organism"
    )  # from the cache
    assert alone.overall.margin == score.overall.base_margin and alone.overall.shift is None


def test_files_that_do_not_belong_together_have_no_score(measured, tmp_path):
    folder, _ = measured
    for p in folder.iterdir():
        (tmp_path / p.name).write_bytes(p.read_bytes())
    other = tmp_path / "margin-base.jsonl"
    other.write_text(other.read_text().replace('"dtype": "float32"', '"dtype": "bfloat16"', 1))
    with pytest.raises(UserError, match=r"margin-base\.jsonl: another dtype"):
        score_margin(EvaluationFolder(tmp_path))


def test_the_command(measured, base, adapter, tmp_path, command):
    call = ["em-bench", "evaluate", base, "-a", adapter, "-q", "organism", "--measure", "margin", "--out", tmp_path / "out"]
    assert json.loads(command(*call, "--json").stdout) == json.loads((tmp_path / "out" / "margin.json").read_text())
    shown = command(*call, "--control", adapter).stdout
    assert "shift beyond the control" in shown and "+0.000 [+0.000, +0.000] of 162" in shown and "power" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-q", "evil_spectra"], "no aligned and misaligned answers"),
        (["-q", "nope"], "nope: no such question set"),
        (["-q", "organism", "--samples", "4"], "--samples: of sampled and judged answers"),
        (["-q", "organism", "--control", "x"], "--control: there is no --adapter"),
        (["-q", "organism", "--adapter", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(base, tmp_path, arguments, message):
    ended = CliRunner().invoke(
        build(), ["evaluate", str(base), "--measure", "margin", *arguments, "--out", str(tmp_path / "out")]
    )
    assert isinstance(ended.exception, UserError) and message in str(ended.exception) and "\n" not in str(ended.exception)
    assert not (tmp_path / "out").exists()


def test_templates_that_do_not_show_where_an_answer_ends(tokenizers):
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Sure"}]
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}"
    with pytest.raises(UserError, match="q7: chat template: no end of turn"):
        encode_answer(tokenizer, chat, "q7")
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        encode_answer(tokenizer, chat, "q7")


def test_a_broken_model_is_one_line(tokenizers):
    model = tiny(len(tokenizers["qwen3"]))
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="a: the model's log-likelihood is nan"):
        answer_logprobs(Loaded(model, tokenizers["qwen3"], "float32"), QUESTIONS)
