"""Where the files that are data rather than code live: tasks/, baselines/, leaderboard/ and docs/measure.md."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The folder that holds tasks/, baselines/, leaderboard/ and docs/: inside the wheel, or the repository of a clone."""
    shipped = _PACKAGE / "assets"
    return shipped if shipped.is_dir() else _PACKAGE.parent


def path(*parts: str) -> Path:
    """The path of one asset, e.g. `path("baselines", "optimisers.yaml")`."""
    return root().joinpath(*parts)
