"""Where the configuration lies: `conf` and `experiments`, inside the package in a wheel, beside it in a checkout."""

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def beside_or_inside(folder: str) -> Path:
    """A folder of the configuration. Ends the program, with exit code 2, where the package is not unpacked on disk."""
    if not PACKAGE.is_dir():
        print(f"pgolf: {PACKAGE} lies in an archive; install it unpacked (pip install does)", file=sys.stderr)
        sys.exit(2)
    inside = PACKAGE / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def overlays() -> dict[str, Path]:
    """The overlay of every experiment, by name."""
    return {file.parent.name: file for file in sorted(beside_or_inside("experiments").glob("*/overlay.yaml"))}
