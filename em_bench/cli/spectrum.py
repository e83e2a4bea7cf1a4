"""`em-bench spectrum`: singular values of any PEFT LoRA adapter."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `spectrum`."""
    app.command()(spectrum)


def spectrum(
    adapter: Annotated[Path, typer.Argument(help="A PEFT adapter folder, or a run folder that holds one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the layers and the summary as JSON.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw the singular-value curves into this .svg or .png file.")] = None,
) -> None:
    """Print a row a layer and the means: stable rank, entropy, effective rank, condition number, Frobenius/nuclear; and the
    Frobenius norm of the update scale B A, in the last row that of all layers together.

    A flat spectrum has a flatness gap (F/N - 1/sqrt(r)) of 0 and an effective rank of r. Layers without an update
    (B = 0) are counted and left out. What an adapter changes by other means than a B A (whole modules, embeddings, trained
    tokens, biases) is named, not measured; one whose update is not B A, such as a DoRA, is refused.
    """
    import json

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from em_bench.adapter_file import load_adapter
    from em_bench.errors import UserError

    if plot and plot.suffix not in (".svg", ".png"):
        raise UserError(f"--plot {plot}: ends in neither .svg nor .png; name one of these")
    tensors = load_adapter(adapter)
    from em_bench.spectral import layer_spectra, lora_pairs, mean_of

    pairs = lora_pairs(tensors)
    layers, matrices = layer_spectra(pairs), sum(p.experts for p in pairs)
    summary = mean_of(layers)
    if plot and layers:
        from em_bench.training.plots import draw_spectrum

        draw_spectrum(layers, plot)
    if as_json:
        rows = [{**layer._asdict(), "sigma": layer.sigma.tolist()} for layer in layers]
        print(
            json.dumps(
                {
                    "layers": rows,
                    "without_update": matrices - len(layers),
                    "left_out": tensors.left_out,
                    "summary": summary and summary.model_dump(),
                },
                indent=1,
            )
        )
        return
    table = Table(box=box.SIMPLE)
    table.add_column("layer")
    for name in ("stable rank", "entropy", "effective rank", "condition", "F/N", "F/N - 1/√r", "norm"):
        table.add_column(name, justify="right")
    for s in layers:
        table.add_row(
            s.name, f"{s.stable_rank:.2f}", f"{s.entropy:.3f}", f"{s.effective_rank:.2f}",
            f"{s.condition_number:.3g}", f"{s.frobenius_nuclear:.3f}", f"{s.flatness_gap:.4f}", _norm(s.norm),
        )  # fmt: skip
    if summary:
        table.add_section()
        effective = sum(s.effective_rank for s in layers) / len(layers)
        table.add_row(
            f"mean of {summary.layers} layers", f"{summary.stable_rank:.2f}", f"{summary.entropy:.3f}", f"{effective:.2f}",
            f"{summary.condition_number:.3g}", f"{summary.frobenius_nuclear:.3f}", f"{summary.flatness_gap:.4f}", _norm(summary.norm),
        )  # fmt: skip
    console = Console(markup=False, emoji=False)
    (console if console.is_terminal else Console(markup=False, emoji=False, width=160)).print(table)
    if len(layers) < matrices:
        print(f"{matrices - len(layers)} of {matrices} layers have no update (B = 0)")
    for kind, modules in tensors.left_out.items():
        more = f", and {len(modules) - 3} more" if len(modules) > 3 else ""
        print(f"not measured, for they are no B A: {kind}: {', '.join(modules[:3])}{more}")


def _norm(norm: float | None) -> str:
    return "?" if norm is None else f"{norm:.4g}"
