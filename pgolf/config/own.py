"""The user's own modules: where components outside of pgolf live, found and read without importing them.

They are the module that a `_target_` names and everything that it imports, but for pgolf, the standard library and packages
that were installed. Their source is what ships with a run, what its identity holds and what the plan shows.
"""

import ast
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import decode_source, find_spec
from pathlib import Path
from typing import Any

from pgolf.errors import ConfigError
from pgolf.files.frozen import TARGET

COMPILED = (*EXTENSION_SUFFIXES, *BYTECODE_SUFFIXES)
INSTALLED = {"site-packages", "dist-packages"}
PGOLF = re.compile(r"^\s*(from|import)\s+pgolf\b", re.MULTILINE)
MOST_READ = 50  # modules that are looked through to see whether a file is meant for pgolf


class SourceError(ValueError):
    """Why a module cannot be taken along, in words that follow its name."""


@dataclass(frozen=True)
class Module:
    """One source file of the user's, by its dotted name."""

    name: str
    path: Path

    @property
    def source(self) -> str:
        """Its text, whatever its encoding and line ends."""
        return decode_source(self.path.read_bytes())

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def package(self) -> str:
        """What its relative imports start from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    def tree(self) -> ast.Module:
        """Its syntax. Raises SourceError."""
        try:
            return ast.parse(self.source)
        except (SyntaxError, UnicodeDecodeError, ValueError) as wrong:
            where = f"{self.path}, line {wrong.lineno}" if isinstance(wrong, SyntaxError) else self.path
            raise SourceError(f"is no Python that can be read ({where}: {getattr(wrong, 'msg', wrong)})") from None
        except OSError as wrong:
            raise SourceError(f"cannot be read ({self.path}: {wrong.strerror})") from None


def targets(config: dict, above: str = "") -> dict[str, str]:
    """The `_target_`s outside of pgolf by dotted key. {"ttt": {"_target_": "a.B"}} gives {"ttt._target_": "a.B"}."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= targets(value, f"{above}{name}.")
        elif name == TARGET and str(value).partition(".")[0] != "pgolf":
            found[f"{above}{TARGET}"] = str(value)
    return found


def modules(config: dict) -> list[Module]:
    """The user's modules that the components of a config need, by name. ConfigError for one that cannot be taken along."""
    found: dict[str, Module] = {}
    for key, target in targets(config).items():
        try:
            found |= {module.name: module for module in closure(target)}
        except SourceError as wrong:
            raise ConfigError(key, target, str(wrong)) from None
    return [found[name] for name in sorted(found)]


def sha256s(config: dict) -> dict[str, str]:
    """Of the source of every module of `modules`, by name; empty for a config of pgolf's parts alone."""
    return {module.name: module.sha256 for module in modules(config)}


def closure(target: str) -> list[Module]:
    """The user's modules that importing `target` ("package.module.Class") may ever import. Raises SourceError."""
    found: dict[str, Module] = {}
    waiting = [target]
    while waiting:
        for module in located(waiting.pop(), target.partition(".")[0]):
            if module.name not in found:
                found[module.name] = module
                waiting += imports(module)
    if not found:
        raise SourceError(
            f"there is no module {target.rpartition('.')[0]!r} here; install it, or start where its file is"
        )
    return list(found.values())


def located(dotted: str, first: str) -> list[Module]:
    """The user's modules that importing `dotted` runs: its packages, then itself; a trailing name is dropped. Empty if they
    are not the user's: installed packages are, when `first` is the one that a component lives in."""
    top, *rest = dotted.split(".")
    if top == "pgolf" or (top in sys.stdlib_module_names and top != first):
        return []
    if top in sys.stdlib_module_names:
        raise SourceError(f"{top} is the name of a standard module; give yours another")
    spec = _spec(top)
    if spec is None or (top != first and _installed(spec)):
        return []
    if spec.submodule_search_locations is None:
        return [Module(top, _source(top, Path(spec.origin or "")))]
    folder, name, found = Path(next(iter(spec.submodule_search_locations))), top, []
    if (folder / "__init__.py").exists():
        found.append(Module(top, folder / "__init__.py"))
    for part in rest:
        name, folder = f"{name}.{part}", folder / part
        if (folder / "__init__.py").exists():
            found.append(Module(name, folder / "__init__.py"))
        elif folder.with_name(f"{part}.py").exists():
            return [*found, Module(name, folder.with_name(f"{part}.py"))]
        elif compiled := [s for s in COMPILED if folder.with_name(f"{part}{s}").exists()]:
            raise SourceError(f"needs {folder.with_name(f'{part}{compiled[0]}')}, which is compiled: only source ships")
        elif not folder.is_dir():
            break
    return found


@cache
def _spec(top: str) -> ModuleSpec | None:
    try:
        return find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None


def _installed(spec: ModuleSpec) -> bool:
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    return spec.origin in ("built-in", "frozen") or any(INSTALLED & set(Path(place).parts) for place in places)


def _source(name: str, path: Path) -> Path:
    if path.suffix != ".py" or not path.is_file():
        raise SourceError(f"needs {name} ({path}), which is no file of source: only source ships")
    return path


def imports(module: Module) -> list[str]:
    """Dotted names that a module imports at run time, in functions too; `from a import b` gives a.b. Raises SourceError for one
    that a file of the user's hides from the standard library."""
    names = sorted(imported_names(module))
    for top in sorted({name.partition(".")[0] for name in names} & sys.stdlib_module_names):
        root = module.path.parents[module.package.count(".") + 1 if module.package else 0]
        if hiding := [p for p in (root / f"{top}.py", root / top / "__init__.py") if p.exists()]:
            raise SourceError(
                f"{module.name} imports {top}, and {hiding[0]} has the name of that standard module; rename it"
            )
    return names


def imported_names(module: Module) -> set[str]:
    """The absolute names in all its imports."""
    return {name for node in run_time(module.tree()) for name in imported(node, module)}


def run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    yield node
    skipped = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    for child in node.orelse if skipped else ast.iter_child_nodes(node):
        yield from run_time(child)


def imported(node: ast.AST, module: Module) -> list[str]:
    """The absolute names in one import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{absolute(node, module)}.{alias.name}" for alias in node.names]
    return []


def absolute(node: ast.ImportFrom, module: Module) -> str:
    """What `from` names: `from . import a` in p.q.r is p.q."""
    if not node.level:
        return node.module or ""
    parts = module.package.split(".")
    if node.level > len(parts) or not module.package:
        raise SourceError(f"{module.name}, line {node.lineno}: a relative import that leaves its package")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _readable(name: str, top: str) -> list[Module]:
    """The modules that `name` means, without those that have no source."""
    try:
        return list(located(name, top))
    except SourceError:
        return []


@cache
def for_pgolf(target: Any) -> str:
    """Why a `_target_` is not meant for pgolf, or the empty string: its source, as far as it is the user's, imports pgolf."""
    if not isinstance(target, str):
        return f"its {TARGET} is no name"
    if target.partition(".")[0] == "pgolf":
        return ""
    module, waiting, seen = target.rpartition(".")[0], [target], set()
    try:
        if all(found.name != module for found in located(target, target.partition(".")[0])):
            return f"its module {module} is not here"
        while waiting and len(seen) < MOST_READ:
            for module in _readable(waiting.pop(0), target.partition(".")[0]):
                if module.name not in seen:
                    seen.add(module.name)
                    if PGOLF.search(module.source):
                        return ""
                    waiting += imports(module)
    except SourceError:
        return ""  # it is told when the option is chosen
    except OSError as wrong:
        return f"its module cannot be read: {wrong.strerror}"
    return f"{target} is not built on pgolf"
