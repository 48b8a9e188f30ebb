"""Where the configuration lies: `conf` and `experiments`, inside the package in a wheel, beside it in a checkout."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def beside_or_inside(folder: str) -> Path:
    inside = PACKAGE / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def overlays() -> dict[str, Path]:
    """The overlay of every experiment, by name."""
    return {file.parent.name: file for file in sorted(beside_or_inside("experiments").glob("*/overlay.yaml"))}
