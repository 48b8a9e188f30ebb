"""Paths as people write them, `~` included, also where nobody has a home folder."""

import os
from pathlib import Path

from pgolf.errors import UserError


def expanded(path: str) -> Path:
    """Absolute, with `~` as the home folder. UserError where there is none: HOME is unset and the user has no account here."""
    found = os.path.expanduser(path)  # pathlib's raises a RuntimeError
    if found.startswith("~"):
        name = found.partition("/")[0]
        raise UserError(
            f"{path}: {name} is no folder here; set HOME, or PGOLF_CACHE=DIR for the cache, or write the whole path"
        )
    return Path(found).absolute()
