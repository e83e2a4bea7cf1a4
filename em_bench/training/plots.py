"""The figures of a run: losses over steps, how flat the update's spectrum is, and the spectrum itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from em_bench.errors import UserError
from em_bench.files import atomic_file, read_text
from em_bench.records import StepRecord
from em_bench.run_folder import LOG

if TYPE_CHECKING:
    from em_bench.spectral import LayerSpectrum


def read_log(folder: Path) -> list[StepRecord]:
    """The records of a run. Raises UserError where there are none."""
    try:
        return [StepRecord.model_validate_json(line) for line in read_text(folder / LOG).splitlines()]
    except (UserError, ValueError):
        raise UserError(f"{folder / LOG}: missing or not a run's log; name a run folder") from None


def draw(records: Sequence[StepRecord], title: str, path: Path) -> None:
    """Write an .svg or .png: training and held-out loss; entropy and flatness gap of the spectrum (where measured)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    if path.suffix not in (".svg", ".png"):
        raise UserError(f"--plot {path}: ends in neither .svg nor .png; name one of these")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    trained = [r for r in records if r.loss is not None]  # no colours: those of reports each mean an optimiser
    left.plot([r.step for r in trained], [r.loss for r in trained], color="#999999", lw=1, label="training batch")
    measured = [r for r in records if r.held_out_loss is not None]
    left.plot([r.step for r in measured], [r.held_out_loss for r in measured], color="black", marker="o", ms=4, label="held out")
    left.set(xlabel="optimiser step", ylabel="nats an answer token")
    left.legend(frameon=False)
    gaps = {r.step: r.spectral.flatness_gap for r in records if r.spectral}
    right.plot([*gaps], [*gaps.values()], color="black", marker="o", ms=4)
    right.set(xlabel="optimiser step", ylabel="F/N - 1/√r of the update (0 is flat)", ylim=(0, None))
    figure.suptitle(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, "wb") as f:
        figure.savefig(f, format=path.suffix[1:], dpi=150)
    plt.close(figure)


def draw_spectrum(layers: Sequence["LayerSpectrum"], path: Path) -> None:
    """Write an .svg or .png: the singular values of every layer over the largest, a colour a kind of layer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    kinds = sorted({s.name.rsplit(".", 1)[-1] for s in layers})
    # Safe for the colour-blind, and none of them an optimiser's.
    colours = [matplotlib.colormaps["viridis"](0.9 * i / max(len(kinds) - 1, 1)) for i in range(len(kinds))]
    for s in layers:
        kind = s.name.rsplit(".", 1)[-1]
        axes.plot(
            range(1, len(s.sigma) + 1), (s.sigma / s.sigma[0]).tolist(), color=colours[kinds.index(kind)], alpha=0.7, lw=1.2
        )
    for i, kind in enumerate(kinds):
        axes.plot([], [], color=colours[i], label=kind)
    axes.set(xlabel="index", ylabel="singular value / largest", ylim=(0, 1.05))
    axes.legend(frameon=False)
    with atomic_file(path, "wb") as f:
        figure.savefig(f, format=path.suffix[1:], bbox_inches="tight", dpi=150)
    plt.close(figure)
