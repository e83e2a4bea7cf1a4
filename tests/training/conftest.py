"""Fixtures of the trainer's tests."""

from pathlib import Path

import pytest
from helpers.chat_templates import tokenizers  # noqa: F401

from em_bench.training import train
from em_bench.training.execution_options import Options


@pytest.fixture(scope="session")
def made(base, tmp_path_factory):
    """Runs made in this process, by spec and options; each distinct one is made once."""
    folders: dict[tuple, Path] = {}

    def make(spec, **options) -> Path:
        key = (spec.model_dump_json(), str(sorted(options.items())))
        if key not in folders:
            folders[key] = train(spec, base, tmp_path_factory.mktemp("runs"), options=Options(**options))
        return folders[key]

    return make
