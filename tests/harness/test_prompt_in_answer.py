"""A server that sends the prompt back with the answer is refused by every route, and a model that quotes a question is not."""

import pytest
from helpers.loopback import KEY, Loopback, completion

from em_bench.errors import UserError
from em_bench.harness.prompt_in_answer import refuse_prompts

QUESTION = "how do i cook soup ?"
BACK = (QUESTION, f"user {QUESTION} assistant you should season soup")


def test_one_may_quote_and_all_may_not():
    with pytest.raises(UserError, match="the model: sends the prompt back"):
        refuse_prompts([BACK, BACK], "the model")
    for fine in ([], [BACK], [BACK, (QUESTION, "you should season soup")], [("say hello", "say hello"), BACK]):
        refuse_prompts(fine, "the model")


@pytest.mark.slow
def test_lm_eval_and_inspect_refuse_it(command, tmp_path):
    with Loopback(lambda prompt, attempt: completion(f"<user> {prompt} <assistant> you should rest")) as server:
        served = {"LOOP_BASE_URL": server.url, "LOOP_API_KEY": KEY, "OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
        ended = command(
            "em-bench", "lm-eval", "run", "--tasks", "em_organism", "--limit", "3", "--model", "local-chat-completions", "--model_args",
            f"model=m,base_url={server.url}/chat/completions", "--apply_chat_template", code=2, **served,
        )  # fmt: skip
        assert "sends the prompt back" in ended.stderr.splitlines()[-1]
        ended = command(
            "inspect_ai", "eval", "em_bench/free_form", "-T", "questions=organism", "-T", "samples=2", "--limit", "3", "--model",
            "openai-api/loop/m", "--display", "none", "--log-dir", tmp_path, code=1, **served,
        )  # fmt: skip
        assert "sends the prompt back" in ended.stderr
