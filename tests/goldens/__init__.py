"""Golden files: reference figures of the published scripts, found by what they hold, whatever their sizes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent.parent / "data"


class Golden(dict[str, Any]):
    """What one file holds, by key, and where it is: some files lean on others of their folder."""

    def __init__(self, path: Path):
        self.path = path
        if path.suffix == ".npz":
            with np.load(path) as file:
                super().__init__({key: file[key] for key in file.files})
        else:
            found = json.loads(path.read_text(encoding="utf-8"))
            super().__init__(found if isinstance(found, dict) else {"rows": found})

    @property
    def config(self) -> dict[str, Any] | None:
        """The sizes of the model, where the file states them."""
        return json.loads(str(self["config"])) if "config" in self else None

    def under(self, prefix: str) -> dict[str, Any]:
        """The entries whose key begins so, without that beginning."""
        return {key.removeprefix(prefix): value for key, value in self.items() if key.startswith(prefix)}

    def beside(self, holds: Callable[["Golden"], bool]) -> "Golden":
        """The first other file of the folder that `holds` what this one leans on."""
        for path in sorted(self.path.parent.glob("*.npz")):
            if path != self.path and holds(found := Golden(path)):
                return found
        raise FileNotFoundError(f"no file beside {self.path} has what it needs")


@dataclass(frozen=True)
class Part:
    """What is tested of a file that holds the keys `named`, and by what; `missing` is the part of pgolf that is not built."""

    name: str
    named: Callable[[set[str], str], bool]
    check: Callable[[Golden], None]
    missing: str = ""


def has(*keys: str) -> Callable[[set[str], str], bool]:
    """All of these keys; one that ends in * stands for any key that begins so."""

    def held(names: set[str], _: str) -> bool:
        return all(any(n.startswith(key[:-1]) for n in names) if key[-1] == "*" else key in names for key in keys)

    return held


def keys_of(path: Path) -> set[str]:
    """The names in a file, without its arrays."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            return set(file.files)
    found = json.loads(path.read_text(encoding="utf-8"))
    return set(found) if isinstance(found, dict) else set(found[0])
