"""What the YAML files beside this one name by `!function em.X`."""

from em_bench.harness.lm_eval.free_form import FreeForm
from em_bench.harness.lm_eval.likelihood import ChoiceTask, Knowledge, Margin, Narrow

__all__ = ["ChoiceTask", "FreeForm", "Knowledge", "Margin", "Narrow"]
