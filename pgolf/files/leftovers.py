"""What a process that was killed leaves: the unfinished file or folder beside the place that it was writing."""

import re
import shutil
from contextlib import suppress
from pathlib import Path


def clear(folder: Path, name: str = "*") -> None:
    """Remove what writes of `name` in `folder` that were cut short have left. Called by who owns the place, before it writes.

    What cannot be removed stays: it is only in the way of a tidy folder.
    """
    for path in folder.glob(f".{name}.*.tmp"):
        if re.fullmatch(r"\..*\.[0-9a-f]{32}\.tmp", path.name):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it, as far as that can be done."""
    with suppress(OSError):
        path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
