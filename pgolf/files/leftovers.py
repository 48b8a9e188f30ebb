"""What a process that was killed leaves: the unfinished file or folder beside the place that it was writing."""

import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

HOUR = 3600.0  # no write of a file takes so long


def clear(folder: Path, name: str = "*", age: float = 0.0) -> None:
    """Remove what writes of `name` in `folder` that were cut short have left, if it is `age` seconds old. Called before writing
    there: by who owns the place, or, where others write at the same time, with an age that no write of theirs reaches.

    What cannot be removed stays: it is only in the way of a tidy folder.
    """
    for path in folder.glob(f".{name}.*.tmp"):
        with suppress(OSError):
            if re.fullmatch(r"\..*\.[0-9a-f]{32}\.tmp", path.name) and time.time() - path.stat().st_mtime >= age:
                remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it, as far as that can be done."""
    with suppress(OSError):
        path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
