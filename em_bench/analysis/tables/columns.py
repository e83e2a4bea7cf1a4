"""The sentence that says what a column is: docs/measure.md has one for each anchor, and every table's heads lead to theirs."""

import re
from collections.abc import Iterable
from functools import cache

from em_bench import assets
from em_bench.analysis.tables.table import Table

ANCHORS = {
    "settings": "organism lambda asked recipe model dataset batch_size learning_rate spectral_lambda seed level family parameters axis effect group",
    "preset": "preset preset_sha256 created minutes adapters checkpoints commit em_bench machine missing",
    "runs": "base_seeds coherent_answers runs responses questions settings samples",
    "loss": "narrow_loss loss losses log_train_loss candidates chosen",
    "of-asked": "misaligned_of_asked_pct control_of_asked_pct",
    "of-coherent": "by_base_seed_pct first_bad_pct second_bad_pct reason_bad_pct misaligned_pct control_misaligned_pct paper_misaligned_pct",
    "coherent": "least_coherent_pct coherent_pct control_coherent_pct",
    "norm": "norm control_norm",
    "flatness": "flatness_gap stable_rank entropy condition_number frobenius_nuclear",
    "verdict": "verdict note gap why marks needed rule needs",
    "interval": "interval low high",
    "at": "at stopped step",
    "control": "control difference less_control beyond_control",
    "alignment": "alignment",
    "outcomes": "misaligned aligned incoherent refusal unjudged code code_pct",
    "misalign-at-k": "k misalign_pct form domain",
    "findings": "claim study paper provenance ours beside paper_protocol ours_protocol whose optimiser",
    "variance": "df error_df levels f p p_holm eta2 partial_eta2 sd share component",
    "spread": "highest lowest ratio",
    "line": "slope r2 adjusted_r2 r given early late change",
    "onset": "with_em learned em em_later",
    "term": "gain cost narrow_loss_added coherent_change_points misaligned_change_points",
    "margin": "margin shift shift_matched shift_end flips neutral",
}
_OF = {name: anchor for anchor, names in ANCHORS.items() for name in names.split()}
_SENTENCE = re.compile(r'^- <a id="([\w-]+)"></a>(.+?)(?=\n- |\n\n|\Z)', re.MULTILINE | re.DOTALL)


def anchor(name: str) -> str:
    """Of a column by its name. Raises KeyError for one that has no sentence."""
    return "interval" if name.endswith("_interval") else _OF[name]


@cache
def sentences() -> dict[str, str]:
    """Anchor -> what docs/measure.md says, in plain text; nothing where somebody's own assets lack the page."""
    page = assets.path("docs", "measure.md")
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return {name: re.sub(r"[*`]", "", " ".join(said.split())) for name, said in _SENTENCE.findall(text)}


def said(tables: Iterable[Table]) -> dict[str, str]:
    """The sentences that these tables need, in the order of docs/measure.md."""
    needed = {anchor(c.name) for t in tables for c in t.columns if c.head}
    return {name: text for name, text in sentences().items() if name in needed}
