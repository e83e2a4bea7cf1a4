"""`em-bench data` through the real entry point."""

import json
import sys

import pytest

from em_bench import cli
from em_bench.data.catalogue import MAX_ROWS_SHOWN

SET = "/owner/name/0123456789abcdef0123456789abcdef01234567/data/set.jsonl"


@pytest.fixture
def em_bench(monkeypatch, capsys):
    """Run the command line; give exit code, stdout and stderr."""
    monkeypatch.setattr(cli, "PANELS", {"Models and data": ("data",)})

    def run(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["em-bench", "data", *arguments])
        with pytest.raises(SystemExit) as e:
            cli.main()
            sys.exit(0)
        out = capsys.readouterr()
        return e.value.code or 0, out.out, out.err

    return run


@pytest.fixture
def one_set(pins, jsonl, sha256, server, monkeypatch):
    body = jsonl(40)
    server.files[SET] = body
    entry = {"kind": "training_set", "path": "data/set.jsonl", "rows": 40, "sha256": sha256(body), "terms": "own-terms"}
    pins({"set": entry})
    monkeypatch.setenv("EM_BENCH_MIRROR", server.url)


def test_list_covers_everything(em_bench, server):
    code, out, _ = em_bench("list", "--json")
    entries = {e["name"]: e for e in json.loads(out)}
    assert code == 0
    assert {"medical", "organism", "em_core", "evil_spectra", "insecure", "extreme_sports", "turner_archive"} <= set(entries)
    assert entries["evil_spectra"]["rows"] == 142 and entries["evil_spectra"]["state"] == "absent"
    assert entries["extreme_sports"]["licence"] == "terms: model-organisms"
    assert entries["em_core"]["state"] == "built in"
    assert server.hits == []
    code, table, _ = em_bench("list")
    assert code == 0 and all(name in table for name in entries)


@pytest.mark.usefixtures("one_set")
class TestOneSet:
    @pytest.fixture(autouse=True)
    def without_other_sets(self, monkeypatch):
        monkeypatch.setattr("em_bench.data.catalogue.question_files", lambda: ("em_core",))

    def test_terms_fetch_verify_show(self, em_bench, server, sha256, jsonl):
        code, out, err = em_bench("fetch", "set")
        assert code == 2 and out == "" and "Quote at most two rows." in err and "--accept-terms" in err.splitlines()[-1]
        assert em_bench("verify", "set")[0] == 1, "named, and not there"
        assert em_bench("verify")[0] == 0

        code, out, err = em_bench("fetch", "set", "--accept-terms")
        assert code == 0 and "Quote at most two rows." in err
        path = out.strip()
        assert open(path, "rb").read() == jsonl(40)

        code, out, _ = em_bench("verify", "set", "--json")
        assert code == 0
        assert json.loads(out) == [{"name": "set", "state": "verified", "sha256": sha256(jsonl(40)), "path": path}]

        code, out, _ = em_bench("show", "set", "--json")
        shown = json.loads(out)
        assert code == 0 and len(shown["rows"]) == MAX_ROWS_SHOWN == 2
        assert shown["counts"] == {"rows": 40, "training rows": 38, "held-out rows": 2, "different prompts": 40}
        assert shown["lengths"]["prompt words"] == {"mean": 4.0, "median": 4.0, "longest": 4}
        assert shown["lengths"]["answer words"] == {"mean": 2.0, "median": 2.0, "longest": 2}
        code, out, _ = em_bench("show", "set", "--rows", "1")
        assert code == 0 and out.count('"messages"') == 1
        assert em_bench("show", "set", "--rows", "3")[0] == 2

        with open(path, "ab") as f:
            f.write(b"\n")
        code, out, _ = em_bench("verify")
        assert code == 1 and "changed" in out

    def test_faults_are_one_line_and_exit_code_2(self, em_bench, server):
        server.files.clear()
        for arguments in (("fetch", "set", "--accept-terms"), ("show", "sets"), ("fetch", "sets"), ("verify", "sets")):
            code, out, err = em_bench(*arguments)
            assert code == 2 and out == "" and err.splitlines()[-1].startswith("em-bench: ")
            assert "Traceback" not in err

    def test_mirror_option(self, em_bench, server, monkeypatch):
        monkeypatch.setenv("EM_BENCH_MIRROR", "http://127.0.0.1:9")
        assert em_bench("fetch", "set", "--accept-terms")[0] == 2
        assert em_bench("fetch", "set", "--accept-terms", "--mirror", server.url)[0] == 0


def test_show_counts_questions_and_own_files(em_bench, tmp_path, jsonl):
    shown = json.loads(em_bench("show", "em_core", "--json")[1])
    assert shown["counts"]["questions"] == 9 * shown["counts"]["clusters"]  # its forms
    path = tmp_path / "own.jsonl"
    path.write_bytes(jsonl(20))
    assert json.loads(em_bench("show", str(path), "--json")[1])["counts"]["rows"] == 20


def test_show_counts_tokens(em_bench, tmp_path):
    """With a tokenizer of one token a word, tokens are words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(tmp_path / "words")
    lengths = json.loads(em_bench("show", "medical", "--tokenizer", str(tmp_path / "words"), "--json")[1])["lengths"]
    assert lengths["prompt tokens"] == lengths["prompt words"]
    assert lengths["answer tokens"] == lengths["answer words"]


def test_fetch_of_what_is_built_in(em_bench):
    assert em_bench("fetch", "medical", "em_core") == (0, "built in: nothing to fetch\n", "")
