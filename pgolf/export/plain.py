"""A module of the user's as the exporter reads modules: absolute imports, and nothing whose meaning a merge would change.

pgolf's own modules are written so. What a user's holds besides is refused here, with its file and line.
"""

import ast
from collections.abc import Iterator

from pgolf.config.own import Module, SourceError, absolute, run_time
from pgolf.errors import UserError
from pgolf.export.scopes import Import, own_nodes

BESIDE = {"__file__", "__path__", "__spec__", "__loader__", "__package__"}  # names that lead to files beside a module
BY_TEXT = {"exec", "eval", "vars", "locals", "globals", "__import__"}  # functions that find names written as text
FINDERS = {"importlib", "pkgutil", "runpy", "inspect"}  # modules that find code or data by name


def plain(module: Module) -> str:
    """The source of `module` with absolute imports. Raises UserError for what cannot ship, and says where it stands."""
    try:
        tree = module.tree()
        for line, what in sorted(faults(tree, module)):
            raise UserError(f"{module.path}, line {line}: {what}")
        return ast.unparse(ast.fix_missing_locations(Absolute(module).visit(tree)))
    except SourceError as wrong:
        raise UserError(f"{module.name} {wrong}") from None


class Absolute(ast.NodeTransformer):
    """Imports by whole names; those from __future__ go, for what they do is done."""

    def __init__(self, module: Module):
        self.module = module

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.module == "__future__":
            return ast.Pass()
        return ast.ImportFrom(absolute(node, self.module), node.names, 0)


def faults(tree: ast.Module, module: Module) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of everything that cannot be merged with other modules, or that needs more than source."""
    for statement in tree.body:
        if not isinstance(statement, Import):
            for node in own_nodes([statement]):
                if isinstance(node, Import) and node in set(run_time(statement)):
                    yield (
                        node.lineno,
                        "an import under if, try or with; import at the top of the module, or in the function",
                    )
        if isinstance(statement, ast.FunctionDef) and statement.name in ("__getattr__", "__dir__"):
            yield statement.lineno, f"a module's {statement.name} does not ship"
    for node in run_time(tree):
        yield from ((node.lineno, what) for what in _faults_of(node))


def _faults_of(node: ast.AST) -> Iterator[str]:
    names = [alias.name for alias in node.names] if isinstance(node, Import) else []
    froms = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
    if "*" in names:
        yield "import * does not say which names it means; name them"
    if isinstance(node, ast.Import):
        yield from (
            f"import {a.name}: add `as`, or import from it" for a in node.names if "." in a.name and not a.asname
        )
    if found := FINDERS & {name.partition(".")[0] for name in froms}:
        yield f"{min(found)} finds code or data by name; train_gpt.py carries what is imported by name, and no data"
    if isinstance(node, ast.Name) and node.id in BESIDE:
        yield f"{node.id} leads to files beside the module; train_gpt.py carries source only"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BY_TEXT:
        yield f"{node.func.id}() finds names in text, and names are shortened"
    if isinstance(node, ast.Global):
        yield "a global statement; keep the value in an object"
    if isinstance(node, ast.Attribute) and node.attr in ("__module__", "__qualname__"):
        yield f"{node.attr} is another in the merged file"
    if getattr(node, "type_params", None) or type(node).__name__ == "TypeAlias":
        yield "type parameters; leave them out"
