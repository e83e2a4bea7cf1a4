"""The numbers of "Evil Spectra" (arXiv:2606.31591) that a report stands beside its own, and how sure we are of each.

P = stated in the paper itself, or read off its Figure 1 (then the text says so); S = independent public readings of the full paper
agree. The study and the protocol that made them are named with each; em_bench's readings of the paper are in its protocol page.
"""

import numpy as np
import pandas as pd

from em_bench import assets
from em_bench.records import Provenance, Record, Study

TITLE = "Evil Spectra: How Optimisers can Amplify or Suppress Emergent Misalignment"
ARXIV = "2606.31591"
FIGURE_MODEL = "Qwen3-8B"  # of Figure 1
READING_ERROR = {"train_loss": 0.005, "alignment": 0.4}  # of the points read off the figure: ln loss, points
MAIN = "Qwen3 4B, 8B, 30B-A3B, 32B; 4 datasets x 2 batch sizes, 1 epoch; 142 questions x 10 answers; GPT-4o judge"
RATES = "Qwen3-8B, 9 pairs of optimiser and rate; 3 datasets x batch sizes 2 and 32, 1 epoch; 142 questions x 10 answers; GPT-4o judge"
PATHS = "Qwen3-8B; 4 datasets, 2 epochs, tuned rates; 142 questions x 32 answers; GPT-4o judge"
TERM = "Qwen3-8B; 4 datasets, 2 epochs, tuned rates, spectral regularisation against the same without it; GPT-4o judge"
READ = ", read off Figure 1"


class Fact(Record):
    """One number of the paper. `number` in the unit of its claim (points, ratio, R^2), `text` as the paper has it."""

    number: float
    text: str
    study: Study
    protocol: str
    provenance: Provenance


def _fact(study: Study, protocol: str, provenance: Provenance, number: float, text: str) -> Fact:
    return Fact(number=number, text=text, study=study, protocol=protocol, provenance=provenance)


FACTS = {
    "lion-adam": _fact("main", MAIN, "S", 37.0 - 13.85, "37.0 % against 13.8 to 13.9 %"),
    "muon-adam": _fact("main", MAIN, "S", 5.3 - 13.85, "5.3 % against 13.8 to 13.9 %"),
    "qwen3-4b": _fact("main", "Qwen3-4B; " + MAIN.split("; ", 1)[1], "S", 66.1, "66.1"),
    "lion-code": _fact("main", "insecure code, Lion; GPT-4o judge", "S", 44.4, "44.4 % CODE answers"),
    "loss-r2": _fact("loss-alignment", RATES, "P", 0.74, "R² 0.74"),
    "stratified-r2": _fact("loss-alignment", RATES, "P", 0.94, "adjusted R² 0.94"),
    "sgd-lowest": _fact("loss-alignment", RATES, "P", 68.9 - 71.9, "68.9 against 71.9 (Lion, next) at ln loss 0.5" + READ),
    "batch-size": _fact(
        "loss-alignment", RATES, "P", -12.7, "mean alignment 12.7 points lower at batch 2 than at 32, over 5 optimisers" + READ
    ),
    "shared-early": _fact("dynamics", PATHS, "P", 0.0, "Adam, Lion and Muon share one curve until ln loss 0.15" + READ),
    "part-late": _fact("dynamics", PATHS, "P", 69.4 - 57.8, "Muon 69.4, Lion 57.8 at the end, shared before" + READ),
    "loss-order": _fact(
        "dynamics",
        PATHS,
        "P",
        0.0,
        "Kendall's tau 0 (ln loss SGD 0.26, Lion -0.09, Adam -0.19, Muon -0.20; alignment 75.3, 57.8, 65.8, 69.4)" + READ,
    ),
    "term-adam": _fact("regularisation", TERM, "S", 6.6, "+6.6 points for 0.013 nats"),
    "term-lion": _fact("regularisation", TERM, "S", 8.0, "+8.0 points for 0.003 nats"),
    "term-muon": _fact("regularisation", TERM, "S", 2.1, "+2.1 points"),
    "term-sgd": _fact("regularisation", TERM, "S", -3.5, "-3.5 points"),
    "code-clean": _fact("regularisation", "insecure code, Adam, regularised; GPT-4o judge", "S", 0.0, "no EM left"),
}

# Printed beside Figure 1 (P): R^2 by optimiser, of one line through all, and adjusted, of a line for each.
R2 = {"sgd": 0.90, "adam": 0.93, "adamw": 0.91, "lion": 0.92, "muon": 0.94}
R2_ALL, R2_ADJUSTED = 0.74, 0.94
EQUAL_LOSS = (0.3, 0.5)  # ln training loss at which the fitted lines of Figure 1 are read

OPTIMISERS = {
    "sgd": None,
    "adam": "13.8 to 13.9",
    "adamw": "13.8 to 13.9",
    "lion": "37.0",
    "muon": "5.3",
}  # main sweep, per cent, S
SIZES = {
    "Qwen3-4B": "16.8",
    "Qwen3-8B": "16.2",
    "Qwen3-30B-A3B": "19.0",
    "Qwen3-32B": "18.0",
}  # main sweep, per cent, S
TERM_GAINS = {"adam": "+6.6 (0.013 nats)", "lion": "+8.0 (0.003 nats)", "muon": "+2.1", "sgd": "-3.5"}  # points, S


def figure1_points() -> pd.DataFrame:
    """The left panel of Figure 1 as runs: a row a condition, with the columns that `loss_alignment` reads.

    The rates behind the markers are not known: those of one optimiser, dataset and batch size are numbered.
    """
    table = pd.read_csv(assets.path("baselines", "paper", "figure1_points.csv"))
    table = table.rename(columns={"optimiser": "recipe", "mean_alignment": "alignment"})
    rate = table.groupby(["recipe", "dataset", "batch_size"]).cumcount().astype(float)
    return table.assign(train_loss=np.exp(table["log_train_loss"]), model=FIGURE_MODEL, learning_rate=rate)


def figure1_ends() -> pd.DataFrame:
    """The right panel's base and ends: columns recipe (base, sgd, ...), log_train_loss, alignment."""
    table = pd.read_csv(assets.path("baselines", "paper", "figure1_ends.csv"))
    return table.rename(columns={"optimiser": "recipe", "mean_alignment": "alignment"})
