"""Short names for a whole program: what its functions keep for themselves, and what it defines at its top.

Local names are given out in the order in which they appear, so that the same shapes of code become the same text, which
compressors like. Attributes, and parameters that a call may name, keep their names.
"""

import ast
import builtins
import keyword
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count, product

from pgolf.export.scopes import (
    FUNCTIONS,
    MISSING,
    Import,
    Renamer,
    body_of,
    bound_names,
    local,
    own_nodes,
    scope_names,
)

BUILTINS = frozenset(dir(builtins))


def rename(source: str, kept: Iterable[str] = ()) -> str:
    """`source`, a whole program, with short names; of those defined at its top only `kept` stay.

    rename("def double(number): return 2 * number\\nprint(double(1))") == "def A(a):\\n    return 2 * a\\nprint(A(1))"
    """
    tree = ast.parse(source)
    top = [name for statement in tree.body for name in bound_names(statement)]
    renamed = Locals(Named(tree), {*top, *BUILTINS}).visit(tree)
    used = Counter(node.id for node in ast.walk(renamed) if isinstance(node, ast.Name))
    own = [name for s in tree.body if not isinstance(s, Import) for name in bound_names(s)]
    free = fresh(string.ascii_uppercase, {*used, *kept, *BUILTINS})
    order = sorted(set(own) - set(kept), key=lambda name: (-used[name], name))
    return ast.unparse(Globals(dict(zip(order, free, strict=False))).visit(renamed))


def fresh(letters: str, taken: set[str]) -> Iterator[str]:
    """Names, shortest first, that are not taken and mean nothing to Python."""
    words = ("".join(word) for length in count(1) for word in product(letters, repeat=length))
    return (word for word in words if word not in taken and not keyword.iskeyword(word))


class Locals(Renamer):
    """Renames what belongs to functions, lambdas and comprehensions; what belongs to classes can be asked for by name."""

    def __init__(self, named: "Named", taken: set[str]):
        super().__init__()
        self.named, self.taken = named, taken

    def meanings(self, scope: ast.AST) -> dict[str, str]:
        names = scope_names(scope)
        if isinstance(scope, ast.ClassDef):
            return {name: name for name in names}
        fixed = self._fixed(scope)
        used = {node.id for node in ast.walk(scope) if isinstance(node, ast.Name)}
        around = {
            new
            for node, found in self.scopes
            if not isinstance(node, ast.ClassDef)
            for old, new in found.items()
            if old in used
        }
        free = fresh(string.ascii_lowercase, self.taken | around | fixed)
        return {name: name if name in fixed else next(free) for name in names}

    def _fixed(self, scope: ast.AST) -> set[str]:
        """Parameters that calls may name, and what is imported inside."""
        inside = {local(a) for n in own_nodes(body_of(scope)) if isinstance(n, Import) for a in n.names}
        if not isinstance(scope, FUNCTIONS):
            return inside
        given = [*scope.args.args, *scope.args.kwonlyargs]
        return inside | {a.arg for a in given if self.named.may_name(scope.name, a.arg)}

    def renamed(self, name: str) -> str:
        found = self.found(name)
        return name if found is MISSING else found


class Globals(ast.NodeTransformer):
    """Renames what is at the top: no local name is like any of these."""

    def __init__(self, names: dict[str, str]):
        self.names = names

    def visit_Module(self, node: ast.Module) -> ast.Module:
        for statement in node.body:
            if hasattr(statement, "name"):
                statement.name = self.names.get(statement.name, statement.name)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


class Named:
    """What calls may name parameters by: keywords, and, where a `**mapping` is spread, any word in quotes.

    A call by a name at the top concerns that function or class; of an attribute, all methods of that name; of anything
    else, everything. Calls that only reach other libraries do not count, unless they are given a function of ours.
    """

    def __init__(self, tree: ast.Module):
        nodes = list(ast.walk(tree))
        self.functions = {n.name for n in nodes if isinstance(n, FUNCTIONS)}
        self.classes = {n.name for n in nodes if isinstance(n, ast.ClassDef)}
        words = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        self.words = {word for word in words if word.isidentifier()}
        self.foreign = {name for n in nodes if isinstance(n, Import) for name in bound_names(n)}
        self.given: dict[str, set[str]] = {}
        for node in nodes:
            if isinstance(node, ast.Call):
                self._call(node)

    def _call(self, node: ast.Call) -> None:
        callee, root = ast.unparse(node.func).rpartition(".")[2], ast.unparse(node.func).partition(".")[0]
        passed_on = any(ast.unparse(a).rpartition(".")[2] in self.functions for a in node.args)
        if (root in self.foreign or root in BUILTINS) and not passed_on:
            return
        to = "" if passed_on or root == "super()" else self._receiver(callee)
        for word in node.keywords:
            self.given.setdefault(to, set()).update({word.arg} if word.arg else self.words)

    def _receiver(self, callee: str) -> str:
        """Whose parameters a call names; "" is anybody's."""
        if callee == "cls" or callee in self.classes:
            return "__init__"
        return callee if callee in self.functions else ""

    def may_name(self, function: str, parameter: str) -> bool:
        return parameter in self.given.get(function, set()) | self.given.get("", set())
