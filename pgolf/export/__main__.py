"""`python -m pgolf.export RUN [--unpack DIR]`: what is inside a `train_gpt.py`, and what each module in it costs.

RUN is a run folder, a submission folder, or the file itself. Nothing in it is executed. The file is built again from this
package and its own recipe: when that gives the same bytes, `--unpack` shows the source before names were shortened.
"""

import ast
import bz2
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgolf.config.command import Parser, Result, StatusLines, aligned, command
from pgolf.config.own import located
from pgolf.errors import UserError
from pgolf.export.code import Inside, literal, unpack, weigh, wrapped
from pgolf.export.merge import GIVEN
from pgolf.export.program import PACKAGE, Program, program
from pgolf.export.scopes import Import
from pgolf.files import json_bytes, write_folder
from pgolf.files.names import CODE

HEAD = f'''"""What a pgolf train_gpt.py runs, before names were shortened. It runs, too: its recipe lies beside it."""

import json
from pathlib import Path

{GIVEN} = json.loads(Path(__file__).with_name("recipe.json").read_text(encoding="utf-8"))
'''


@command()
def main(args: Sequence[str], say: StatusLines) -> Result:
    parser = Parser("export", "Show what an exported file holds.")
    parser.add_argument("run", metavar="RUN", type=Path, help=f"a run or submission folder, or a {CODE}")
    parser.add_argument("--unpack", metavar="DIR", type=Path, help="write the source inside to this new folder")
    options = parser.parse_args(args)
    value = seen(options.run, options.unpack)
    return Result("pgolf.export/1", value, "\n".join(lines(value)))


def seen(run: Path, folder: Path | None) -> dict[str, Any]:
    """What the file holds, as plain values; writes `folder` if one is named."""
    if folder and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not empty; name a new folder")
    data = read(run / CODE if run.is_dir() else run)
    inside = unpack(data)
    made, fault = built_again(inside, data)
    parts = costs(inside, modules(made, made.small()) if made else inside.modules)
    if folder:
        write(folder, inside, made)
    unpacked = {"folder": str(folder), "names": "whole" if made else "shortened"} if folder else None
    return {**weigh(data), "not_built_again": fault or None, "modules": parts, "unpacked": unpacked}


def lines(value: dict[str, Any]) -> Iterable[str]:
    """The report of `seen`, a line at a time."""
    yield table(value["modules"])
    yield "{bytes} bytes, sha256 {sha256}".format(**value)
    yield f"built again from this package it is {value['not_built_again'] or 'the same'}"
    if unpacked := value["unpacked"]:
        source = "before names were shortened" if unpacked["names"] == "whole" else "as it is inside"
        yield f"unpacked to {unpacked['folder']}: the source {source}"


def built_again(inside: Inside, data: bytes) -> tuple[Program | None, str]:
    """The program that gives the same bytes, or None and why there is none: a module of the user's may not be here."""
    try:
        made = program(inside.recipe)
    except UserError as wrong:
        return None, f"no file: {wrong}"
    same = wrapped(inside.recipe, made.small()) == data
    return (made, "") if same else (None, "another file: the sources differ")


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def modules(made: Program, small: str) -> dict[str, str]:
    """The small source of every module of a program, of its imports, and of the short names for builtins that come first.

    Statements keep their order."""
    found: dict[str, str] = {}
    body, of_modules = ast.parse(small).body, made.origins()
    own = sum(not isinstance(statement, Import) for statement in body)
    origins = iter(["builtins"] * (own - len(of_modules)) + of_modules)
    for statement in body:
        name = "imports" if isinstance(statement, Import) else next(origins)
        found[name] = found.get(name, "") + (ast.get_source_segment(small, statement) or "") + "\n"
    return found


def costs(inside: Inside, parts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Bytes of every module as written, as it is inside, and how much smaller the file were without it; the dearest first, and
    at the end all together."""
    held = {"the recipe": f"{literal(inside.recipe)}\n", **parts}
    whole = packed("".join(held.values()))
    rows = []
    for name, text in held.items():
        others = packed("".join(source for other, source in held.items() if other != name))
        rows.append(row(name, written(name), len(text.encode()), whole - others))
    rows.sort(key=lambda one: (one["costs"], one["module"]), reverse=True)
    return [*rows, row("total", *(sum(one[key] for one in rows) for key in ("written", "inside")), whole)]


def row(module: str, written: int, inside: int, costs: int) -> dict[str, Any]:
    return {"module": module, "written": written, "inside": inside, "costs": costs}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of `costs` in columns."""
    head = ("module", "written", "inside", "costs")
    return aligned([head, *(tuple(str(one[key]) for key in head) for one in rows)])


def packed(text: str) -> int:
    """Bytes of `text`, compressed."""
    return len(bz2.compress(text.encode()))


def written(module: str) -> int:
    """Bytes of a module of this package, or of the user's; 0 for what is none."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    files = [file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()]
    files += [found.path for found in located(module, "") if found.name == module]
    return files[0].stat().st_size if files else 0


def write(folder: Path, inside: Inside, made: Program | None) -> None:
    """The source, readable as far as that can be, and the recipe."""
    source = made.source if made else ast.unparse(ast.parse(inside.modules["program"]))
    headed = re.sub(r"^'([\w.]+)'$", r"\n# \1", source, flags=re.MULTILINE)
    write_folder(folder, {CODE: f"{HEAD}\n{headed}\n".encode(), "recipe.json": json_bytes(inside.recipe)})


if __name__ == "__main__":
    sys.exit(main())
