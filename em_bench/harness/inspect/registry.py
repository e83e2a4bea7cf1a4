"""What Inspect finds through the entry point `em_bench` of the group `inspect_ai`."""

from em_bench.harness.inspect.providers import embench
from em_bench.harness.inspect.scorer import misalignment
from em_bench.harness.inspect.tasks import choice, free_form, margin, narrow

__all__ = ["choice", "embench", "free_form", "margin", "misalignment", "narrow"]
