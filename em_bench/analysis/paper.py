"""The numbers of "Evil Spectra" (arXiv:2606.31591) that a report stands beside its own, and how sure we are of each.

P = stated in the paper's abstract; S = independent public readings of the full paper agree. The protocol that made
them is named with each; em_bench's readings of the paper are in its protocol page, section 4.
"""

from em_bench.records import Provenance, Record

TITLE = "Evil Spectra: How Optimisers can Amplify or Suppress Emergent Misalignment"
ARXIV = "2606.31591"
MAIN = "Qwen3 4B, 8B, 30B-A3B, 32B; 4 datasets x 2 batch sizes; 142 questions x 10 answers; GPT-4o judge"
RATES = "Qwen3-8B, 54 settings of learning rate and optimiser; 142 questions x 10 answers; GPT-4o judge"
TERM = "spectral regularisation against the same training without it; GPT-4o judge"


class Fact(Record):
    """One number of the paper. `number` in the unit of its claim (points, ratio, R^2), `text` as the paper has it."""

    number: float
    text: str
    protocol: str
    provenance: Provenance


FACTS = {
    "lion-adam": Fact(number=37.0 - 13.85, text="37.0 % against 13.8 to 13.9 %", protocol=MAIN, provenance="S"),
    "muon-adam": Fact(number=5.3 - 13.85, text="5.3 % against 13.8 to 13.9 %", protocol=MAIN, provenance="S"),
    "adamw-adam": Fact(number=0.0, text="both 13.8 to 13.9 %", protocol=MAIN, provenance="S"),
    "spread": Fact(number=7.0, text="7x", protocol=MAIN, provenance="P"),
    "optimiser-size": Fact(
        number=(37.0 - 5.3) - (19.0 - 16.2),
        text="31.7 points between optimisers, 2.8 between sizes",
        protocol=MAIN,
        provenance="S",
    ),
    "qwen3-4b": Fact(number=66.1, text="66.1", protocol="Qwen3-4B; " + MAIN.split("; ", 1)[1], provenance="S"),
    "loss-r2": Fact(number=0.74, text="R² 0.74", protocol=RATES, provenance="S"),
    "stratified-r2": Fact(number=0.94, text="adjusted R² 0.94", protocol=RATES, provenance="S"),
    "term-adam": Fact(number=6.6, text="+6.6 points for 0.013 nats", protocol=TERM, provenance="S"),
    "term-lion": Fact(number=8.0, text="+8.0 points for 0.003 nats", protocol=TERM, provenance="S"),
    "term-muon": Fact(number=2.1, text="+2.1 points", protocol=TERM, provenance="S"),
    "term-sgd": Fact(number=-3.5, text="-3.5 points", protocol=TERM, provenance="S"),
    "code-clean": Fact(number=0.0, text="no EM left", protocol="insecure code, Adam, regularised; GPT-4o judge", provenance="S"),
    "lion-code": Fact(number=44.4, text="44.4 % CODE answers", protocol="insecure code, Lion; GPT-4o judge", provenance="S"),
}

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
