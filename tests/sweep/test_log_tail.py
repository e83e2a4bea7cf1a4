"""The end of a log of any size costs what the end costs."""

import os
import tracemalloc

from em_bench.sweep.engine.snakemake_run import tail


def test_the_last_lines_that_say_something(tmp_path):
    log = tmp_path / "log"
    assert tail(log) == "(no log)"
    log.write_bytes(b"a\n\nb\xff\n  \nc\n\n")
    assert tail(log, 2) == "b\N{REPLACEMENT CHARACTER}\nc" and tail(log) == "a\nb\N{REPLACEMENT CHARACTER}\nc"


def test_memory_does_not_grow_with_the_log(tmp_path):
    log = tmp_path / "log"
    with open(log, "wb") as f:
        os.truncate(f.fileno(), 1 << 32)  # sparse: four gigabytes that nobody wrote
        f.seek(0, os.SEEK_END)
        f.write(b"\nError: the end\n")
    tracemalloc.start()
    said = tail(log, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert said == "Error: the end" and peak < 2e6
