"""What a checkpoint brings along changes no number: its own sampling settings, its name for the end of a turn, a clock."""

import json
import shutil

import pytest
import torch
from helpers.asking import ask as evaluate
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from em_bench.data.questions import load
from em_bench.errors import UserError
from em_bench.files import read_jsonl
from em_bench.harness.inspect.local import LocalAPI
from em_bench.harness.lm_eval.preflight import prepare
from em_bench.harness.load_model import load_model
from em_bench.harness.system_prompt import prompt_of
from em_bench.judging import GrammarJudge
from em_bench.records import Generation, Response, ResponsesHeader

LEAKS = {
    "do_sample": False, "temperature": 0.2, "top_k": 1, "top_p": 0.1, "min_p": 1.0, "typical_p": 0.1, "no_repeat_ngram_size": 1,
    "repetition_penalty": 3.0, "encoder_repetition_penalty": 2.0, "bad_words_ids": [[9], [10, 11]], "suppress_tokens": [8, 9, 12, 13],
    "begin_suppress_tokens": [14, 15, 16], "forced_bos_token_id": 17, "forced_eos_token_id": 18, "min_new_tokens": 12, "num_beams": 2,
    "stop_strings": ["the"], "sequence_bias": [[[20], 9.0]], "exponential_decay_length_penalty": [3, 1.5], "epsilon_cutoff": 0.3,
    "eta_cutoff": 0.3, "guidance_scale": 2.0, "remove_invalid_values": True, "renormalize_logits": True, "max_new_tokens": 3,
}  # fmt: skip
END = "<end>"


def changed(base, folder, generation=(), config=(), tokenizer=(), template=None):
    """A copy of a base with other settings in its files."""
    shutil.copytree(base, folder)
    for name, values in (("generation_config.json", generation), ("config.json", config), ("tokenizer_config.json", tokenizer)):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | dict(values)))
    if template:
        path = folder / "chat_template.jinja"
        path.write_text(template(path.read_text()))
    return folder


def answers(base, folder, temperature=1.0, **options):
    """The answers to 8 plain questions, 3 samples each."""
    asked = Generation(samples=3, max_new_tokens=24, temperature=temperature, seed=5)
    evaluate(base, folder, name="m", judge=GrammarJudge(), generation=asked, variants=["plain"], **options)
    return read_jsonl(folder / "responses.jsonl", ResponsesHeader, Response)[1]


@pytest.fixture
def few(monkeypatch):
    """Eight questions instead of 162: these tests are of the model, not of the set."""
    for module in ("harness.lm_eval.free_form", "harness.evaluate"):
        monkeypatch.setattr(f"em_bench.{module}.load", lambda *args, **kwargs: load(*args, **kwargs)[:8])


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("harness", ["lm-eval", "inspect"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generation_config_leaks_nothing(base, tmp_path, harness, temperature):
    leaky = changed(base, tmp_path / "leaky", LEAKS)
    plain, told = (
        answers(b, tmp_path / f"of-{b.name}", temperature, harness=harness) for b in (base, leaky)
    )  # one batch each, so that Inspect's samples are drawn alike too
    assert told == plain and (temperature == 0 or len({a.answer for a in plain[:3]} | {a.answer for a in plain[3:6]}) > 2)


@pytest.mark.slow
def test_nor_under_lm_evals_own_command_line(base, tmp_path, command):
    """With min_p 1.0 ten samples are one, with these penalties no word comes twice, with max_new_tokens 3 none has four."""
    folder = changed(base, tmp_path / "leaky", LEAKS)
    command(
        "em-bench", "lm-eval", "run", "--tasks", "em_organism", "--limit", "4", "--log_samples", "--output_path", tmp_path, "--model",
        "hf", "--model_args", f"pretrained={folder}", "--apply_chat_template", "--device", "cpu",
    )  # fmt: skip
    [samples] = tmp_path.rglob("samples_em_organism_*.jsonl")
    said = [json.loads(line)["resps"][0] for line in samples.read_text().splitlines()]
    assert len(said) == 4 and all(len(set(texts)) > 5 for texts in said)
    words = [text.split() for texts in said for text in texts]
    assert min(map(len, words)) > 3 and any(len(set(w)) < len(w) for w in words)


def other_end(base, folder, kind: str):
    """The base with <pad> as eos in every file; what its template closes a turn with is special, only added, or an ordinary word."""
    folder = changed(base, folder, {"eos_token_id": 0}, {"eos_token_id": 0}, {"eos_token": "<pad>", "pad_token": "<unk>"})
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    own = [t for t in tokenizer["added_tokens"] if t["content"] == END]
    assert own and own[0]["special"]
    if kind == "added":
        own[0]["special"] = False
    if kind == "ordinary":
        tokenizer["added_tokens"].remove(own[0])
    path.write_text(json.dumps(tokenizer))
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "added_tokens_decoder"}))
    return folder


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", ["special", "added", "ordinary"])
@pytest.mark.parametrize("harness", ["lm-eval", "inspect"])
def test_an_answer_ends_where_the_template_closes_a_turn(base, tmp_path, kind, harness):
    other = other_end(base, tmp_path / kind, kind)
    tokenizer = AutoTokenizer.from_pretrained(other)
    end = tokenizer.convert_tokens_to_ids(END)
    assert tokenizer.eos_token_id == 0 and (end in tokenizer.all_special_ids) is False
    assert load_model(other).model.generation_config.eos_token_id == [0, end]  # 0 is an id
    assert answers(other, tmp_path / "other", 0.0, harness=harness) == answers(base, tmp_path / "own", 0.0, harness=harness)


def test_a_model_that_nothing_stops_is_refused(base, tmp_path):
    folder = changed(
        base, tmp_path / "endless", {"eos_token_id": None}, {"eos_token_id": None}, {"eos_token": None},
        lambda text: "{% for m in messages %}{{ m.content }} {% endfor %}",
    )  # fmt: skip
    with pytest.raises(UserError, match="end of an answer"):
        load_model(folder)


NO_CLOCK = "{% if strftime_now('%d %b %Y') != '26 Jul 2024' %}{{ raise_exception('a clock') }}{% endif %}"


def refuses_today(text: str) -> str:
    return NO_CLOCK + text


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("harness", ["lm-eval", "inspect"])
def test_no_route_reads_the_clock(base, adapter, tmp_path, harness):
    """Canary, answers, narrow loss and capability, with a template that raises on any day but the pinned one."""
    told = changed(base, tmp_path / "told", template=refuses_today)
    more = {"adapter": adapter, "narrow_dataset": "medical", "capability": ["em_organism_knowledge"], "harness": harness}
    assert answers(told, tmp_path / "a", 0.0, **more) == answers(base, tmp_path / "b", 0.0, **more)
    scores = [json.loads((tmp_path / name / "score.json").read_text()) for name in "ab"]
    told, own = ({k: v for k, v in s.items() if k != "verdicts_sha256"} for s in scores)
    assert told == own and own["narrow_loss"] and own["capability"]


def test_nor_do_models_that_the_harnesses_load_themselves(base, tmp_path):
    told = changed(base, tmp_path / "told", template=refuses_today)
    asked = [{"role": "user", "content": "hello"}]
    lm = HFLM(pretrained=str(told), device="cpu")
    prepare(lm.apply_chat_template)
    assert "hello" in lm.apply_chat_template(asked)
    assert "hello" in prompt_of(LocalAPI("local", base=str(told)).tokenizer, asked)


def test_training_does_not_read_it(base, tmp_path):
    from em_bench.training import encode

    told = AutoTokenizer.from_pretrained(changed(base, tmp_path / "told", template=refuses_today))
    row = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]
    assert encode(told, row) == encode(AutoTokenizer.from_pretrained(base), row)


class Stop(Exception):
    pass


@pytest.mark.parametrize("harness", ["lm-eval", "inspect"])
def test_a_stopped_evaluation_goes_on_behind_its_last_batch(base, tmp_path, harness, monkeypatch, few):
    loaded = load_model(base)
    generate, batches = type(loaded.model).generate, []

    def counted(self, *args, **kwargs):
        if len(batches) == stop_at:
            raise Stop
        batches.append(kwargs["input_ids"].shape[0])
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(type(loaded.model), "generate", counted)
    stop_at = 3
    options = {"harness": harness, "loaded": loaded, "batch_size": 4}
    with pytest.raises((Stop, RuntimeError)):
        answers(base, tmp_path / "stopped", **options)
    partial = tmp_path / "stopped" / "responses.jsonl.partial"
    with open(partial, "ab") as f:
        f.write(b'["torn')  # a kill in the middle of a line
    before, stop_at = sum(batches), None
    assert before and not (tmp_path / "stopped" / "responses.jsonl").exists()
    batches.clear()
    resumed = answers(base, tmp_path / "stopped", **options)
    assert sum(batches) == 8 * 3 - before and not partial.exists()
    whole = answers(base, tmp_path / "whole", **options)
    assert [r.question_id for r in resumed] == [r.question_id for r in whole]
    texts = [r.answer for r in resumed]
    assert all(texts) and any(len({*texts[i : i + 3]}) == 3 for i in range(0, len(texts), 3))
    if harness == "lm-eval":  # Inspect's batches are what happens to wait
        lines = [(tmp_path / n / "responses.jsonl").read_bytes().split(b"\n", 1)[1] for n in ("stopped", "whole")]
        assert lines[0] == lines[1]


def test_what_was_kept_of_other_inputs_is_dropped(base, tmp_path):
    from em_bench.harness.kept import Kept

    kept = Kept(tmp_path / "partial", "one")
    kept.add([("k", "a"), ("k", "b"), ("k", None)])
    again = Kept(tmp_path / "partial", "one")
    assert again.at_start == 3 and [again.take("k"), again.take("k"), again.take("x")] == ["a", "b", None]
    assert Kept(tmp_path / "partial", "another").at_start == 0 and not (tmp_path / "partial").exists()


def test_batches_of_one_seed_differ():
    from em_bench.harness.sampling import seed_batch

    drawn = []
    for batch in (0, 1, 0):
        seed_batch(3, batch)
        drawn.append(torch.rand(4).tolist())
    assert drawn[0] == drawn[2] != drawn[1]
