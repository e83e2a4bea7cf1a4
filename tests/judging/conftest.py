"""A judge of the loopback's, with a cache of the test's own and nothing of the caller's environment."""

import pytest
from helpers.loopback import KEY

from em_bench.judging import JudgeOptions
from em_bench.judging.openai import OpenAIJudge


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EM_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("OPENAI_BASE_URL", "EM_BENCH_MIRROR", "EM_BENCH_ACCEPT_TERMS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def judge():
    """An OpenAIJudge at a loopback server, impatient."""

    def make(server, **options) -> OpenAIJudge:
        return OpenAIJudge(
            "judge", JudgeOptions(**{"base_url": server.url, "backoff_s": 0.01, "attempts": 4, "timeout_s": 5.0} | options)
        )

    return make
