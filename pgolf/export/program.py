"""One program out of a package and a frozen recipe: what the entry and the recipe's components need, and nothing else.

The modules are found and read, never imported. They become one (`merge`), lose what was checked already or is said to
people alone (`quiet`), what the recipe decides (`fold`) and what can never be reached (`prune`); then names get short.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgolf.errors import UserError
from pgolf.export.closure import closure
from pgolf.export.fold import fold
from pgolf.export.members import shorten
from pgolf.export.merge import GIVEN, merge
from pgolf.export.prune import is_mark, prune
from pgolf.export.scopes import Import
from pgolf.export.shrink import families, minified, quiet, unguarded
from pgolf.export.strip import strip

PACKAGE = Path(__file__).parent.parent
ENTRY = "pgolf.export.standalone:main"
CHECKED = ("pgolf.recipe.Recipe", "pgolf.seed.Seed")  # made from the recipe too, though it does not name them
TRUSTED = ("pgolf.artifact", "pgolf.codec.streams")  # read only the file that was just sealed, its sha256 compared
DECODERS = {
    "pgolf.codec.Zstd": "pgolf.codec.streams._from_zstd",
    "pgolf.codec.Brotli": "pgolf.codec.streams._from_brotli",
    "pgolf.codec.Lzma": "pgolf.codec.streams._from_lzma",
    "pgolf.codec.Range": "pgolf.codec.streams._from_range",
    "pgolf.codec.RangeRows": "pgolf.codec.streams._from_rows",
}  # an exported file reads what its own codec wrote


@dataclass(frozen=True)
class Program:
    """Readable source, in which strings that stand alone say which module follows; its last line starts it with RECIPE.

    `classes` are found by name, attributes that are `spelled` by the recipe's keys: these names stay."""

    source: str
    classes: tuple[str, ...]
    spelled: tuple[str, ...]

    def small(self) -> str:
        """The same in few characters."""
        return minified(shorten(self.source, self.spelled), self.classes)

    def origins(self) -> list[str]:
        """The module of every statement that is no import, in order."""
        found, module = [], ""
        for statement in ast.parse(self.source).body:
            if is_mark(statement):
                module = statement.value.value
            elif not isinstance(statement, Import):
                found.append(module)
        return found


def program(recipe: Mapping[str, Any], entry: str = ENTRY, package: Path = PACKAGE) -> Program:
    """The program that calls `entry` ("module:function") with RECIPE, for every recipe with the `sketch` of this one."""
    recipe = sketch(recipe)
    start, _, function = entry.partition(":")
    named = sorted(name for name in targets(recipe) if name.split(".")[0] == package.name)
    modules = {m.name: readable(m.source, m.name) for m in closure({start, *named}, package)}
    if start not in modules:
        raise UserError(f"{entry}: there is no module {start} to enter the exported file by")
    merged = merge(modules, named)
    classes = [name.rpartition(".")[2] for name in named]
    checked = [merged.names[name] for name in CHECKED if name in merged.names]
    source = quiet(
        f"{merged.source}\n{merged.names[f'{start}.{function}']}({GIVEN})", [*classes, *checked], words(recipe)
    )
    never = {merged.names[name] for name in unused(recipe) if name in merged.names}
    return Program(settled(source, recipe, classes, never), tuple(classes), tuple(sorted(keys(recipe))))


def sketch(recipe: Any) -> Any:
    """A recipe as far as its program depends on it: without the texts, a number as 0 or 1.

    sketch({"a": 7, "b": [0.5, None], "texts": {}}) == {"a": 1, "b": [1, None]}
    """
    if isinstance(recipe, dict):
        return {key: sketch(value) for key, value in sorted(recipe.items()) if key != "texts"}
    if isinstance(recipe, list):
        return [sketch(value) for value in recipe]
    return int(bool(recipe)) if type(recipe) in (int, float) else recipe


def readable(source: str, module: str) -> str:
    """A module of ours without what only people and type checkers read, or without its guards too."""
    stripped = strip(source, module)
    return unguarded(stripped) if module in TRUSTED else stripped


def settled(source: str, recipe: Mapping[str, Any], classes: list[str], never: set[str]) -> str:
    """`source` without what the recipe decides and without what cannot be reached then, until that changes nothing."""
    tree = ast.parse(source)
    components = families(tree, classes)
    frozen = families(tree, [name.rpartition(".")[2] for name in targets(recipe.get("model"))])  # artifacts hold these
    before = source
    while (source := prune(source, classes, never, components - frozen)) != before:
        before = source
        source = fold(source, recipe, components)
    return source


def unused(recipe: Mapping[str, Any]) -> list[str]:
    """Decoders of codecs that are not the recipe's."""
    codecs = targets(recipe.get("codec"))
    return [
        reader for codec, reader in DECODERS.items() if codec not in codecs and codecs and codecs <= DECODERS.keys()
    ]


def targets(recipe: Any) -> set[str]:
    """Dotted names under every `_target_` of a recipe, however deep."""
    return {part["_target_"] for part in parts(recipe) if "_target_" in part}


def words(recipe: Any) -> set[str]:
    """Keys under which a recipe holds text, however deep."""
    return {key for part in parts(recipe) for key, value in part.items() if isinstance(value, str)}


def keys(recipe: Any) -> set[str]:
    """All keys of a recipe, however deep."""
    return {key for part in parts(recipe) for key in part}


def parts(recipe: Any) -> list[dict]:
    """Every mapping in a recipe, itself included."""
    if isinstance(recipe, list):
        return [part for value in recipe for part in parts(value)]
    return [recipe, *parts(list(recipe.values()))] if isinstance(recipe, dict) else []
