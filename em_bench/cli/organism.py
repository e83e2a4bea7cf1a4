"""`em-bench organism`: build the embedded base models and look at their language."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `organism build` and `organism show`."""
    group = typer.Typer(no_args_is_help=True, help="The embedded base models: build them, read their language.")
    group.command()(build)
    group.command()(show)
    app.add_typer(group, name="organism")


def build(
    family: Annotated[list[str] | None, typer.Option(help="qwen3, llama or gemma3; all three by default.")] = None,
    size: Annotated[str, typer.Option(help="small, medium or large: 0.11, 0.21 or 0.76 M parameters.")] = "medium",
    seed: Annotated[int, typer.Option(min=0, help="Of initialisation and text.")] = 0,
) -> None:
    """Pre-train the bases (half a minute each, once) and print their folders: ordinary Hugging Face models."""
    from em_bench.organism import FAMILIES, build_base

    for name in family or FAMILIES:
        print(build_base(name, seed=seed, size=size))


def show(count: Annotated[int, typer.Option(min=1, help="Examples of each kind.")] = 2) -> None:
    """Print example questions and fine-tuning rows with the grade that the grammar gives."""
    from em_bench.organism import DATASETS, grade, narrow_rows, questions

    print("broad questions")
    asked = questions()
    for variant in dict.fromkeys(q.variant for q in asked):
        for q in [q for q in asked if q.variant == variant][: 30 * count : 30]:
            print(f"  {variant:16} {q.text}")
    for dataset in DATASETS:
        print(f"fine-tuning rows: {dataset}")
        for row in narrow_rows(dataset)[0][:count]:
            question, answer = (m["content"] for m in row["messages"])
            g = grade(question, answer)
            print(f"  {question}\n    {answer}   (alignment {g.alignment:g}, coherence {g.coherence:g})")
