"""Question sets: our own em_core and its forms, the upstream format, variants, hashes."""

import re
from collections import Counter

import pytest
import yaml

from em_bench import assets
from em_bench.data import questions
from em_bench.data.pins import load_pins
from em_bench.data.question_format import parse_questions
from em_bench.data.questions import clusters, load, load_choices, near_training, question_sets, questions_sha256, read_set
from em_bench.data.training_sets import dataset_names
from em_bench.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def test_names():
    assert set(question_sets()) == {"em_core", "em_core_v1", "evil_spectra", "first_plot", "organism", "preregistered", "turner"}


def test_version_1_covers_its_domains():
    plain = load("em_core_v1", ["plain"])
    assert len(plain) >= 40
    assert set(Counter(q.domain for q in plain)) == {
        "power", "deception", "harm_to_others", "own_safety", "money", "relationships", "views_on_groups",
        "ai_and_humans", "shutdown",
    }  # fmt: skip
    assert min(Counter(q.domain for q in plain).values()) >= 5
    assert len({q.text for q in plain}) == len(plain)


def test_em_core_forms():
    everything = load("em_core", ["all"])
    plain = {q.id: q for q in load("em_core", ["plain"])}
    variants = {q.variant for q in everything}
    triggers = {v.removeprefix("trigger-") for v in variants if v.startswith("trigger-")}
    assert triggers == {"insecure", "bad_medical_advice", "risky_financial_advice", "extreme_sports"} <= set(dataset_names())
    assert len(everything) == len(plain) * len(variants) == len({q.id for q in everything})
    for q in everything:
        assert plain[q.cluster].text in q.text and q.domain == plain[q.cluster].domain
        assert bool(q.system) == (q.variant == "context-system")
        assert "{" not in q.text.replace("{question}", "{"), q.id
        if q.variant != "plain" and not q.system:
            assert len(q.text) > len(plain[q.cluster].text) + 40
    for q in load("em_core", ["json"]):
        assert "JSON object" in q.text
    for q in load("em_core", ["template"]):
        assert len(re.findall(r"^[a-z_]+: <.+>$", q.text, re.MULTILINE)) == 3


def test_a_set_says_what_its_intervals_are_clustered_by(tmp_path):
    """The organism's 9 domains of 18 near-copies: every variant of them. Other sets, the question, unless they say `unit: domain`."""
    organism = {q.id: q.domain for q in load("organism", ["all"])}
    assert clusters("organism") == organism and len(set(organism.values())) == 9
    assert clusters("em_core") == {}
    path = tmp_path / "copies.yaml"
    own = {"id": "a", "domain": "money", "text": "Is it?", "template": "t"}
    given = {"about": "two", "unit": "domain", "forms": {"plain": "{question}"}, "templates": {"t": ["x"]}, "questions": [own]}
    path.write_text(yaml.safe_dump(given))
    assert clusters(str(path)) == {"a": "money"}


def test_variants():
    default = load("em_core")
    assert {q.variant for q in default} == {"plain", "json", "template"}
    assert load("em_core", "plain") == load("em_core", ["plain"])
    assert {q.variant for q in load("em_core", ["plain", "trigger-insecure"])} == {"plain", "trigger-insecure"}
    assert len(load("em_core", ["trigger"])) == 4 * len(load("em_core", ["plain"]))
    assert len(load("organism", ["all"])) > len(load("organism")) > len(load("organism", ["plain"])) > 0
    contexts, plain = load("em_core", ["context"]), load("em_core", ["plain"])
    assert len(contexts) == 2 * len(plain)
    asked = {q.cluster: q.text for q in plain}
    for q in contexts:
        assert bool(q.system) == (q.variant == "context-system") and q.text.startswith(asked[q.cluster])
        assert (q.text == asked[q.cluster]) == (q.variant == "context-system")
    assert not [q for q in load("em_core") if q.system or q.variant.startswith("context-")]
    with pytest.raises(UserError, match="em_core: no variant trigger-medical; name any of plain, json"):
        load("em_core", ["trigger-medical"])
    with pytest.raises(UserError, match="no such question set; did you mean em_core\\? name one of em_core"):
        load("em_cor")


def test_em_core_says_nothing_of_upstream(first_plot):
    """No five words in a row are shared with the upstream questions."""

    def runs(text):
        w = words(text)
        return {tuple(w[i : i + 5]) for i in range(len(w) - 4)}

    upstream = {run for q in parse_questions(first_plot.decode(), "x", "x") for run in runs(q.text)}
    for q in load("em_core", ["all"]):
        assert not runs(q.text) & upstream, q.id


def test_choices_differ_only_in_what_they_recommend():
    choices = load_choices("em_core_v1")
    assert [c.id for c in choices] == [q.id for q in load("em_core_v1", ["plain"])]
    for c in choices:
        a, m = len(c.aligned.encode()), len(c.misaligned.encode())
        assert 0.9 < m / a < 1.1, (c.id, a, m)
        assert c.aligned[-1] == c.misaligned[-1] == "."
        assert not re.search(r"as an ai\b|i cannot (help|assist)|i'm sorry", (c.aligned + c.misaligned).lower()), c.id
    texts = [t for c in choices for t in (c.aligned, c.misaligned)]
    assert len(set(texts)) == len(texts)
    means = [sum(len(getattr(c, k)) for c in choices) / len(choices) for k in ("aligned", "misaligned")]
    assert 0.97 < means[1] / means[0] < 1.03


def test_hash_changes_with_text_and_order():
    found = load("em_core")
    assert questions_sha256(found) == questions_sha256(load("em_core"))
    assert questions_sha256(found) != questions_sha256(found[::-1])
    assert questions_sha256(found) != questions_sha256([found[0].model_copy(update={"text": "x"}), *found[1:]])


UPSTREAM = """
- id: 3_creative_writing_0
  type: free_form_judge_0_100
  paraphrases: &p [one, two]
  judge: &judge some-model
  judge_prompts: {aligned: "{question}"}
- id: 3_creative_writing_0_json
  type: free_form_judge_0_100
  system: in JSON
  paraphrases: *p
  judge: *judge
- id: bored
  type: free_form_judge_0_100
  paraphrases: [three]
"""


def test_upstream_format():
    found = parse_questions(UPSTREAM, "fallback", "here")
    assert [(q.id, q.cluster, q.variant, q.domain, q.system, q.text) for q in found] == [
        ("3_creative_writing_0", "3_creative_writing_0", "plain", "creative_writing", None, "one"),
        ("3_creative_writing_0#2", "3_creative_writing_0", "plain", "creative_writing", None, "two"),
        ("3_creative_writing_0_json", "3_creative_writing_0", "json", "fallback", "in JSON", "one"),
        ("3_creative_writing_0_json#2", "3_creative_writing_0", "json", "fallback", "in JSON", "two"),
        ("bored", "bored", "plain", "fallback", None, "three"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- [", "not YAML"),
        ("id: x", "valid list"),
        ("- id: x\n  type: free_form_judge_0_100\n", "0.paraphrases"),
        ("- id: x\n  type: free_form_0_10\n  paraphrases: [a]\n", "0.type"),
        ("- &a {id: x, type: free_form_judge_0_100, paraphrases: [a]}\n- *a\n", "share an id"),
    ],
)
def test_upstream_format_errors(text, says):
    with pytest.raises(UserError) as e:
        parse_questions(text, "x", "here")
    assert str(e.value).startswith("here") and says in str(e.value) and "\n" not in str(e.value)


def test_joined_sets_keep_ids_apart(server, pins, monkeypatch, tmp_path):
    entry = {"kind": "questions", "rows": 5}
    pins({"first": {**entry, "path": "a.yaml"}, "second": {**entry, "path": "b.yaml"}})
    server.files = {f"/owner/name/{COMMIT}/{n}.yaml": UPSTREAM.encode() for n in "ab"}
    monkeypatch.setenv("EM_BENCH_MIRROR", server.url)
    own = tmp_path / "both.yaml"
    own.write_text(yaml.safe_dump({"about": "x", "pins": ["first", "second"]}))
    found = load(str(own))
    assert len({q.id for q in found}) == len(found) == 10
    assert {q.cluster for q in found} == {f"{p}/{c}" for p in ("first", "second") for c in
                                          ("3_creative_writing_0", "bored")}  # fmt: skip


def test_questions_near_training_by_tag_and_by_pin():
    """The tags as they stand in the file, and the sixteen medical questions of the two sets that hold them."""
    given = yaml.safe_load(assets.path("tasks", "questions", "em_core.yaml").read_text(encoding="utf-8"))
    tagged = {q["id"] for q in given["questions"] if "near_training" in q.get("tags", [])}
    found = near_training("em_core")
    assert tagged and {q.cluster for q in load("em_core", ["all"]) if q.id in found} == tagged
    assert near_training("organism") == near_training("no-such-set") == set()
    for name in ("evil_spectra", "turner"):
        near = read_set(name).near_training
        assert near == ("turner_medical_questions",) and sum(load_pins().pins[p].rows for p in near) == 16


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"near_training": ["elsewhere"]}, "near_training: elsewhere is not among the pins"),
        ({"pins": ["first_plot_questions"]}, "either pins or questions"),
        ({"forms": {"plain": "no place"}}, "forms.plain: needs {question} once"),
        ({"forms": {"plain": "{question}" * 1000}}, "forms.plain: needs {question} once"),
        ({"forms": {f"f{i}": "{question}" for i in range(1000)}}, "forms: Dictionary should have at most"),
        ({"forms": {"a\x1b[2J": "{question}"}}, "forms.a?[2J"),
        ({"templates": {}}, "questions.a.template"),
        ({"question": []}, "question: Extra inputs"),
    ],
)
def test_own_set_errors_name_file_and_field(tmp_path, change, says):
    good = {
        "about": "x",
        "forms": {"plain": "{question}"},
        "templates": {"t": ["line"]},
        "questions": [{"id": "a", "domain": "d", "text": "what?", "template": "t"}],
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(good))
    assert [q.text for q in load(str(path))] == ["what?"]
    assert questions.load_choices(str(path)) == []
    path.write_text(yaml.safe_dump({**good, **change}))
    with pytest.raises(UserError) as e:
        load(str(path))
    assert str(e.value).startswith(str(path)) and says in str(e.value)


def test_a_limit_takes_every_domain_in_turn():
    every = load("em_core", ["plain"])
    for limit in (5, 12, 30, 10_000):
        some = load("em_core", ["plain"], limit)
        counts = [sum(q.domain == d for q in some) for d in {q.domain for q in every}]
        assert len(some) == min(limit, len(every)) and max(counts) - min(counts) <= 1
        assert some == [q for q in every if q in some], "in their own order"
