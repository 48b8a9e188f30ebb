"""`python -m pgolf.export RUN [--unpack DIR]`: what is inside a `train_gpt.py`, and what each module of it weighs.

RUN is a run folder, a submission folder, or the file itself. Nothing in it is executed. The file is built again from this
package and its own recipe: when that gives the same bytes, `--unpack` shows the source before names were shortened.
"""

import argparse
import ast
import bz2
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pgolf.code import PACKAGE, Inside, Reach, build, readable, unpack, weigh
from pgolf.compare import aligned
from pgolf.errors import UserError
from pgolf.files import json_bytes, write_bytes
from pgolf.runfolder import CODE


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pgolf.export", description="Show what an exported file holds.")
    parser.add_argument("run", metavar="RUN", type=Path, help=f"a run or submission folder, or a {CODE}")
    parser.add_argument("--unpack", metavar="DIR", type=Path, help="write the source inside to this new folder")
    asked = parser.parse_args(arguments)
    try:
        print("\n".join(show(asked.run, asked.unpack)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def show(run: Path, folder: Path | None) -> Iterable[str]:
    """The report, a line at a time; writes `folder` if one is named."""
    data = read(run / CODE if run.is_dir() else run)
    inside = unpack(data)
    same = build(inside.recipe) == data
    yield table(inside)
    yield "{bytes} bytes, sha256 {sha256}".format(**weigh(data))
    yield f"built again from this package it is {'the same' if same else 'another file: the sources differ'}"
    if folder:
        modules = readable(PACKAGE, Reach.of(inside.recipe)) if same else reformatted(inside)
        write(folder, inside, modules)
        yield f"unpacked to {folder}: {'the source before names were shortened' if same else 'the source as it is inside'}"


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def table(inside: Inside) -> str:
    """Bytes of every module as written, as it is inside, and compressed on its own (together they take less)."""
    rows = []
    for name, text in inside.modules.items():
        path = place(PACKAGE.parent, name, inside.modules)
        written = path.stat().st_size if path.exists() else 0
        rows.append((len(bz2.compress(text.encode())) if text else 0, name, written, len(text.encode())))
    rows.append((len(bz2.compress(json_bytes(inside.recipe))), "the recipe", 0, len(json_bytes(inside.recipe))))
    rows.sort(reverse=True)
    totals = ["total", *(sum(row[i] for row in rows) for i in (2, 3, 0))]
    shown = [(name, written, held, packed) for packed, name, written, held in rows]
    return aligned([("module", "written", "inside", "packed alone"), *(tuple(map(str, r)) for r in [*shown, totals])])


def place(folder: Path, module: str, modules: Iterable[str]) -> Path:
    """The file of a module: an __init__.py where other modules lie below it."""
    path = folder.joinpath(*module.split("."))
    below = any(other.startswith(f"{module}.") for other in modules)
    return path / "__init__.py" if below or (path / "__init__.py").exists() else path.with_suffix(".py")


def reformatted(inside: Inside) -> dict[str, str]:
    return {name: ast.unparse(ast.parse(text)) for name, text in inside.modules.items()}


def write(folder: Path, inside: Inside, modules: dict[str, str]) -> None:
    """One file per module and recipe.json, in a folder that was not there or is empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder}: is not empty; name a new folder")
        for name, text in modules.items():
            path = place(folder, name, modules)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, f"{text}\n".encode())
        write_bytes(folder / "recipe.json", json_bytes(inside.recipe))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
