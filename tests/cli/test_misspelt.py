"""A misspelt name gets the nearest valid one in one line, before anything heavy is imported."""

import pytest
from helpers.light import MISSPELT, at_once

from em_bench.did_you_mean import MANY, unknown


@pytest.mark.parametrize(("arguments", "what", "nearest"), MISSPELT, ids=[" ".join(c[0]) for c in MISSPELT])
def test_the_nearest_name_is_said_at_once(arguments, what, nearest):
    ended = at_once(arguments)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert f": no such {what}; did you mean {nearest}? " in ended.stderr
    assert ended.stdout == ""


def test_a_preset_that_misspells_names(tmp_path):
    from em_bench import assets
    from em_bench.errors import UserError
    from em_bench.sweep.plan import make_plan
    from em_bench.sweep.preset import load_preset

    text = assets.path("baselines", "presets", "tiny.yaml").read_text("utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("organism-qwen3", "organism-qwn3"))
    with pytest.raises(UserError, match="models: organism-qwn3: no such model; did you mean organism-qwen3?"):
        make_plan(load_preset(str(path)))


def test_the_message():
    assert str(unknown("judge", "x", ["grammar"])) == "x: no such judge; name one of grammar"
    assert str(unknown("fruit", "Aple", ["pear", "apple"], "a seed")) == (
        "Aple: no such fruit; did you mean apple? name one of pear, apple, or a seed"
    )
    many = str(unknown("number", "n1x", [f"n{i}" for i in range(MANY + 1)], "none"))
    assert many == "n1x: no such number; did you mean n1? name none"
