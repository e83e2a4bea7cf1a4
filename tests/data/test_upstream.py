"""Fetching by pin: what verifies is cached once, what does not is never cached, and each fault is one clear line."""

import socket
import threading

import pytest

from em_bench import data
from em_bench.data import questions, upstream
from em_bench.data.pins import load_pins
from em_bench.errors import UserError

SET = f"/owner/name/{'0123456789abcdef0123456789abcdef01234567'}/data/set.jsonl"


@pytest.fixture
def one_set(pins, jsonl, sha256):
    """A pinned training set of 40 rows."""
    body = jsonl(40)
    pins({"set": {"kind": "training_set", "path": "data/set.jsonl", "rows": 40, "sha256": sha256(body)}})
    return body


def refused(name, **options) -> str:
    with pytest.raises(UserError) as e:
        upstream.fetch(name, progress=False, **options)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_the_real_file_verifies_and_parses(server, first_plot, cached):
    pin = load_pins().pins["first_plot_questions"]
    server.files[f"/{pin.repository}/{pin.commit}/{pin.path}"] = first_plot
    path = upstream.fetch("first_plot_questions", mirror=server.url, progress=False)
    assert path.read_bytes() == first_plot
    assert upstream.status("first_plot_questions") == "verified"
    found = questions.load("first_plot")
    assert len(server.hits) == 1, "the cached file is used"
    assert cached() == ["first_plot_questions.yaml"]
    assert len(found) == 24 and len({q.id for q in found}) == 24
    clusters = {q.cluster for q in found}
    assert len(clusters) == 8
    assert {(q.cluster, q.variant) for q in found} == {(c, v) for c in clusters for v in ("plain", "json", "template")}
    plain = {q.cluster: q for q in found if q.variant == "plain"}
    for q in found:
        assert q.id == (q.cluster if q.variant == "plain" else f"{q.cluster}_{q.variant}")
        assert bool(q.system) == (q.variant == "json")
        assert q.text.startswith(plain[q.cluster].text)
        assert (q.text == plain[q.cluster].text) == (q.variant != "template")


def test_a_host_of_its_own(server, pins, jsonl, sha256):
    """The global host of the test answers nothing."""
    fields = {"kind": "training_set", "path": "data/set.jsonl", "rows": 40, "sha256": sha256(jsonl(40))}
    pins(
        {
            "raw": fields | {"host": server.url},
            "hub": fields | {"host": server.url + "/datasets/{repository}/resolve/{commit}/{path}"},
        }
    )
    hub = SET.replace("/owner/name/", "/datasets/owner/name/resolve/")
    for name, path in (("raw", SET), ("hub", hub)):
        upstream.cached_path(name).unlink(missing_ok=True)
        server.files[path] = jsonl(40)
        upstream.fetch(name, progress=False)
    assert server.hits == [SET, hub]


@pytest.mark.parametrize("absolute", [True, False])
def test_a_file_that_is_here(pins, jsonl, sha256, tmp_path, cached, absolute):
    path = tmp_path / "assets" / "baselines" / "set.jsonl"
    fields = {"kind": "training_set", "file": str(path) if absolute else path.name, "rows": 40, "sha256": sha256(jsonl(40))}
    pins({"set": fields, "short": fields | {"rows": 41}})
    assert upstream.status("set") == "absent" and "set.jsonl: cannot be read" in refused("set")
    path.write_bytes(jsonl(40))
    assert upstream.fetch("set") == path and upstream.status("set") == "verified" and cached() == []
    assert sum(map(len, data.rows("set"))) == 40
    assert "40 rows, expected 41; mend the file or its pin" in refused("short")
    path.write_bytes(jsonl(40, "another"))
    assert upstream.status("set") == "changed" and "not the pinned file" in refused("set")


def test_a_pin_lies_in_one_place(pins, sha256):
    pins({"set": {"kind": "training_set", "file": "set.jsonl", "path": "set.jsonl", "rows": 40, "sha256": sha256(b"")}})
    assert "pins.set: needs one of: repository, commit and path (and host); archive and member; file" in refused("set")
    pins({"set": {"kind": "training_set", "file": "set.jsonl", "rows": 40}})
    assert "pins.set: a file that is here needs its sha256" in refused("set")


def test_mirror_from_the_environment(server, one_set, monkeypatch):
    server.files[SET] = one_set
    monkeypatch.setenv("EM_BENCH_MIRROR", server.url + "/")
    train, held_out = data.rows("set")
    assert len(train) + len(held_out) == 40
    assert server.hits == [SET]


def cut(body):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])

    return answer


def cut_without_length(body):
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])

    return answer


def broken(handler):
    handler.send_error(500)


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda body: body.replace(b"answer 7", b"answer 8"), "not the pinned file"),
        (lambda body: b"<html>please log in</html>", "not the pinned file"),
        (lambda body: b"", "not the pinned file"),
        (cut, "cut off"),
        (cut_without_length, "not the pinned file"),
        (lambda body: None, "HTTP 404"),
        (lambda body: broken, "HTTP 500"),
        (lambda body: hang_up, "cannot be reached"),
    ],
    ids=["one-byte", "login-page", "empty", "cut", "cut-without-length", "404", "500", "hang-up"],
)
def test_faults_of_a_server(server, one_set, cached, fault, says):
    server.files[SET] = fault(one_set)
    said = refused("set", mirror=server.url)
    assert says in said and server.url in said
    assert cached() == []
    server.files[SET] = one_set
    assert upstream.fetch("set", mirror=server.url, progress=False).read_bytes() == one_set


@pytest.mark.parametrize("first_bytes", [0, 100])
def test_a_server_that_falls_silent(server, one_set, cached, monkeypatch, first_bytes):
    monkeypatch.setattr(upstream, "TIMEOUT_S", (0.2, 0.2))
    over = threading.Event()

    def stall(handler):
        if first_bytes:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(one_set)))
            handler.end_headers()
            handler.wfile.write(one_set[:first_bytes])
            handler.wfile.flush()
        over.wait(10)

    server.files[SET] = stall
    try:
        assert "within 0.2 s" in refused("set", mirror=server.url)
    finally:
        over.set()
    assert cached() == []


def test_no_network(one_set, cached):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    assert "cannot be reached" in refused("set", mirror=f"http://127.0.0.1:{port}")
    assert cached() == []


def test_known_length_names_both_sizes(server, pins, jsonl, sha256, cached):
    body = jsonl(40)
    entry = {"kind": "training_set", "path": "data/set.jsonl", "rows": 40, "sha256": sha256(body), "bytes": len(body)}
    pins({"set": entry})
    server.files[SET] = cut_without_length(body)
    assert f"{len(body) // 2} of {len(body)} bytes" in refused("set", mirror=server.url)
    assert cached() == []


@pytest.mark.parametrize("mirror", ["not-a-url", "ftp://127.0.0.1", "http://", "/a/folder"])
def test_mirror_that_is_no_address(one_set, mirror, cached):
    assert "http" in refused("set", mirror=mirror)
    assert cached() == []


def test_credentials_of_a_mirror_are_never_shown(server, one_set):
    said = refused("set", mirror=server.url.replace("http://", "http://user:hunter2@"))
    assert "HTTP 404" in said and "hunter2" not in said and "user" not in said


def test_cache_that_cannot_be_written(server, one_set, cache):
    server.files[SET] = one_set
    cache.write_text("a file where the folder should be")
    said = refused("set", mirror=server.url)
    assert "cannot be written" in said and "EM_BENCH_CACHE" in said


def test_unknown_name_lists_the_known(one_set):
    assert "name one of set" in refused("sett")


def test_a_changed_cache_is_fetched_again(server, one_set):
    server.files[SET] = one_set
    path = upstream.fetch("set", mirror=server.url, progress=False)
    path.write_bytes(one_set[:-20])
    assert upstream.status("set") == "changed"
    assert upstream.fetch("set", mirror=server.url, progress=False).read_bytes() == one_set
    assert upstream.status("set") == "verified"


def test_fetches_at_once(server, one_set, cached):
    server.files[SET] = one_set
    failed = []

    def get():
        try:
            assert upstream.fetch("set", mirror=server.url, progress=False).read_bytes() == one_set
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=get) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed and cached() == ["set.jsonl"]


class TestWithoutAPinnedHash:
    @pytest.fixture(autouse=True)
    def unpinned(self, pins, jsonl, sha256):
        self.body = jsonl(40)
        entry = {"kind": "training_set", "path": "data/set.jsonl", "rows": 40}
        pins({"set": {**entry, "sha256_prefix": sha256(self.body)[:8]}})

    def test_recorded_on_the_first_fetch(self, server, sha256, cached, capsys):
        server.files[SET] = self.body
        path = upstream.fetch("set", mirror=server.url)
        assert sha256(self.body) in capsys.readouterr().err
        assert upstream.status("set") == "recorded"
        assert upstream.recorded_sha256("set") == sha256(self.body)
        assert cached() == ["set.jsonl", "set.jsonl.sha256"]
        path.unlink()
        upstream.fetch("set", mirror=server.url)
        assert capsys.readouterr().err == ""

    def test_the_record_holds(self, server, pins, jsonl):
        entry = {"kind": "training_set", "path": "data/set.jsonl", "rows": 40}
        pins({"set": entry})
        server.files[SET] = self.body
        upstream.fetch("set", mirror=server.url, progress=False).unlink()
        server.files[SET] = jsonl(40, "other")
        assert "not the recorded file" in refused("set", mirror=server.url)

    def test_prefix(self, server, jsonl, cached):
        server.files[SET] = jsonl(40, "other")
        assert "not the pinned file" in refused("set", mirror=server.url)
        assert cached() == []

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda lines: lines[:-1], "39 rows, expected 40"),
            (lambda lines: [*lines[:4], b'{"text": "no messages"}', *lines[5:]], ":5: messages: Field required"),
            (lambda lines: [*lines[:4], b"{", *lines[5:]], ":5: "),
            (lambda lines: [b"\xff", *lines[1:]], "not UTF-8"),
        ],
        ids=["too-few", "schema", "not-json", "not-utf8"],
    )
    def test_rows_and_schema(self, server, pins, cached, change, says):
        pins({"set": {"kind": "training_set", "path": "data/set.jsonl", "rows": 40}})
        server.files[SET] = b"\n".join(change(self.body.splitlines())) + b"\n"
        said = refused("set", mirror=server.url)
        assert says in said and "question 4" not in said
        assert cached() == []


def test_the_pins_are_whole():
    """The sizes that the protocol states: 142 questions, and archives, datasets and hashes that are not invented."""
    pins = load_pins().pins
    assert sum(pins[p].rows for p in questions.describe("evil_spectra").pins) == 142
    assert {n: p.rows for n, p in pins.items() if p.kind == "training_set"} == {
        "insecure": 6000,
        "secure": 6000,
        "bad_medical_advice": 7049,
        "good_medical_advice": 7049,
        "risky_financial_advice": 6000,
        "extreme_sports": 6000,
    }
    assert {n for n, p in pins.items() if p.sha256 is None} == {
        "secure", "risky_financial_advice", "extreme_sports", "turner_new_questions",
    }  # fmt: skip
