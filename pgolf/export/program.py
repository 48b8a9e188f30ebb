"""One program out of a package and a frozen recipe: what the entry and the recipe's components need, and nothing else.

The modules are found and read, never imported. They become one (`merge`), without the checks of the recipe (`unchecked`) and
without what can never be reached (`prune`). A library makes it small, with what it can prove.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import python_minifier

from pgolf.config.own import Module, SourceError, imports
from pgolf.config.own import closure as needed
from pgolf.errors import UserError
from pgolf.export.checks import unchecked
from pgolf.export.closure import closure
from pgolf.export.merge import GIVEN, merge
from pgolf.export.plain import plain
from pgolf.export.prune import is_mark, prune
from pgolf.export.scopes import Import, only_own_builtins
from pgolf.export.strip import strip

PACKAGE = Path(__file__).parent.parent
ENTRY = "pgolf.export.standalone:main"
RECIPE = "pgolf.recipe.Recipe"  # holds the components, and is frozen as they are, though no recipe names it
NAMED_ERRORS = ("pgolf.errors.UserError",)  # classes whose names are read: by the parent of the ranks


@dataclass(frozen=True)
class Program:
    """Readable source, in which strings that stand alone say which module follows; its last line starts it with RECIPE.

    `names` are found by name while it runs, and stay."""

    source: str
    names: tuple[str, ...]

    def small(self) -> str:
        """The same in few characters."""
        with only_own_builtins():
            return python_minifier.minify(
                self.source,
                preserve_globals=list(self.names),
                rename_globals=True,
                hoist_literals=False,
                remove_literal_statements=True,
                prefer_single_line=True,
            )

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
    """The program that calls `entry` ("module:function") with RECIPE and its own path, for every recipe with these targets."""
    start, _, function = entry.partition(":")
    named = sorted(targets(recipe))
    users = {m.name: m for name in named for m in users_modules(name, package)}
    roots = {start, *named, *(name for m in users.values() for name in imports(m))}
    modules = {m.name: strip(m.source, m.name) for m in closure(inside(roots, package), package)}
    modules |= {name: strip(plain(m), name) for name, m in users.items()}
    if start not in modules:
        raise UserError(f"{entry}: there is no module {start} to enter the exported file by")
    errors_named = [name for name in NAMED_ERRORS if name.rpartition(".")[0] in modules]
    merged = merge(modules, [*named, *errors_named])
    source = f"{merged.source}\n{merged.names[f'{start}.{function}']}({GIVEN},__file__)"
    components, errors = ([name.rpartition(".")[2] for name in names] for names in (named, errors_named))
    frozen = [*components, *([merged.names[RECIPE]] if RECIPE in merged.names else [])]
    kept = [
        merged.names[name] for name in merged.names if name.rpartition(".")[0] in users
    ]  # their code may read names
    return Program(prune(unchecked(source, frozen), components), (*components, *errors, *kept))


def inside(names: Iterable[str], package: Path) -> set[str]:
    """Those of the package."""
    return {name for name in names if name.split(".")[0] == package.name}


def users_modules(target: str, package: Path) -> list[Module]:
    """The modules of the user's that a component outside of the package needs. Raises UserError."""
    if inside([target], package):
        return []
    try:
        return needed(target)
    except SourceError as wrong:
        raise UserError(f"{target}: {wrong}") from None


def targets(recipe: Any) -> set[str]:
    """Dotted names under every `_target_` of a recipe, however deep."""
    return {part["_target_"] for part in parts(recipe) if "_target_" in part}


def parts(recipe: Any) -> list[dict]:
    """Every mapping in a recipe, itself included."""
    if isinstance(recipe, list):
        return [part for value in recipe for part in parts(value)]
    return [recipe, *parts(list(recipe.values()))] if isinstance(recipe, dict) else []
