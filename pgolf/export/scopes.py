"""Which names of Python source are whose: what a statement or a scope binds, and a renamer that knows where it stands."""

import ast
import builtins
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Import = ast.Import | ast.ImportFrom
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
SCOPES = (*FUNCTIONS, ast.Lambda, ast.ClassDef, *COMPREHENSIONS)
MISSING = object()


PYTHONS_OWN = ("builtins", "io", "_io")  # modules that the names which every Python program has come from
CONSTANTS = {"True", "False", "None", "Ellipsis", "NotImplemented"}


def own_builtins() -> set[str]:
    """Names that every program has. Not what `site`, a debugger or a translation has put among them in this process."""
    named = {name for name, value in vars(builtins).items() if getattr(value, "__module__", "") in PYTHONS_OWN}
    return named | CONSTANTS | {name for name in vars(builtins) if name.startswith("__")}


@contextmanager
def only_own_builtins() -> Iterator[None]:
    """While it lasts, the others are put aside: what is made of a program's names does not depend on this process."""
    others = {name: vars(builtins).pop(name) for name in vars(builtins).keys() - own_builtins()}
    try:
        yield
    finally:
        vars(builtins).update(others)


def bound_names(statement: ast.stmt) -> Iterator[str]:
    """Names that a definition, an import or a plain assignment binds; nothing for statements that do other things."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
    elif isinstance(statement, Import):
        yield from (local(alias) for alias in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [node for target in targets for node in (target.elts if isinstance(target, ast.Tuple) else [target])]
        if all(isinstance(node, ast.Name) for node in names):
            yield from (node.id for node in names)


def local(alias: ast.alias) -> str:
    """The name that an import binds. `import a.b` binds a."""
    return alias.asname or alias.name.partition(".")[0]


def imported(statement: Import, module: str) -> Iterator[tuple[str, str]]:
    """(local name, dotted name it stands for) of an absolute import in `module`."""
    if isinstance(statement, ast.Import):
        ours = module.partition(".")[0] + "."
        assert all(a.asname or not a.name.startswith(ours) for a in statement.names), f"{module}: import a.b without as"
        yield from ((local(a), a.name if a.asname else local(a)) for a in statement.names)
    else:
        assert statement.level == 0, f"{module}: a relative import"
        assert all(a.name != "*" for a in statement.names), f"{module}: import *"
        yield from ((local(a), f"{statement.module}.{a.name}") for a in statement.names)


def last_name(node: ast.expr) -> str:
    """What a dotted name ends with; nothing of any other expression. `a.b.c` gives c."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def parameters(args: ast.arguments) -> list[ast.arg]:
    """All parameters of a signature, starred ones last."""
    starred = [a for a in (args.vararg, args.kwarg) if a]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *starred]


def body_of(node: ast.AST) -> list[ast.AST]:
    """What runs inside the scope that a function, lambda or class opens."""
    body = getattr(node, "body", [])
    return body if isinstance(body, list) else [body]


def own_nodes(roots: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes of one scope, in order: what is below `roots`, and of the scopes inside what is worked out around them."""
    for node in roots:
        yield node
        yield from own_nodes(_outer(node) if isinstance(node, SCOPES) else ast.iter_child_nodes(node))


def _outer(node: ast.AST) -> list[ast.AST]:
    """What of a scope is worked out in the one around it, and what it binds there."""
    if isinstance(node, COMPREHENSIONS):
        return [node.generators[0].iter, *(n for n in ast.walk(node) if isinstance(n, ast.NamedExpr))]
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list, *node.bases, *node.keywords]
    return [*getattr(node, "decorator_list", []), *node.args.defaults, *(d for d in node.args.kw_defaults if d)]


def scope_names(node: ast.AST) -> list[str]:
    """The names that belong to the scope that `node` opens: parameters first, then as they appear."""
    if isinstance(node, COMPREHENSIONS):
        return unique(name for g in node.generators for inner in ast.walk(g.target) for name in binds(inner))
    inside = list(own_nodes(body_of(node)))
    assert not any(isinstance(inner, ast.Global) for inner in inside), "a global statement"
    outer = {name for inner in inside if isinstance(inner, ast.Nonlocal) for name in inner.names}
    given = [] if isinstance(node, ast.ClassDef) else [a.arg for a in parameters(node.args)]
    return unique([*given, *(name for inner in inside for name in binds(inner) if name not in outer)])


def unique(names: Iterable[str]) -> list[str]:
    """Names without repetition, in order."""
    return list(dict.fromkeys(names))


def binds(node: ast.AST) -> Iterator[str]:
    """The names that one node binds where it stands."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        yield node.name
    elif isinstance(node, Import):
        yield from map(local, node.names)
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest


class Renamer(ast.NodeTransformer):
    """Gives names other names, knowing for every scope around what its own names mean (`meanings`)."""

    def __init__(self) -> None:
        self.scopes: list[tuple[ast.AST, dict[str, Any]]] = []

    def meanings(self, scope: ast.AST) -> dict[str, Any]:
        """What the names bound in a scope become."""
        raise NotImplementedError

    def renamed(self, name: str) -> str:
        """What `name` is called from now on, where we are."""
        raise NotImplementedError

    def found(self, name: str) -> Any:
        """What `name` means here, or MISSING if it belongs to no scope around: a class is not around its functions."""
        for depth, (node, names) in enumerate(reversed(self.scopes)):
            if name in names and not (isinstance(node, ast.ClassDef) and depth):
                return names[name]
        return MISSING

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.renamed(node.id), node.ctx)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.Nonlocal:
        return ast.Nonlocal([self.renamed(name) for name in node.names])

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        node.name = node.name and self.renamed(node.name)
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, COMPREHENSIONS):
            return self._comprehension(node)
        return self._scope(node) if isinstance(node, SCOPES) else super().generic_visit(node)

    def _comprehension(self, node: ast.expr) -> ast.expr:
        """What it first runs over is worked out around it."""
        first = node.generators[0]
        around, first.iter = self.visit(first.iter), ast.Constant(0)
        with self._inside(node):
            super().generic_visit(node)
        first.iter = around
        return node

    def _scope(self, node: ast.AST) -> ast.AST:
        """A function, lambda or class: its name, its parameters' defaults and the like belong around it."""
        if hasattr(node, "name"):
            node.name = self.renamed(node.name)
        for part in ("decorator_list", "bases", "keywords", "args"):
            self._visit_part(node, part)
        with self._inside(node):
            for parameter in parameters(node.args) if hasattr(node, "args") else ():
                parameter.arg = self.renamed(parameter.arg)
            self._visit_part(node, "body")
        return node

    def _visit_part(self, node: ast.AST, part: str) -> None:
        value = getattr(node, part, None)
        if value is not None:
            setattr(node, part, list(map(self.visit, value)) if isinstance(value, list) else self.visit(value))

    @contextmanager
    def _inside(self, node: ast.AST) -> Iterator[None]:
        self.scopes.append((node, self.meanings(node)))
        yield
        self.scopes.pop()
