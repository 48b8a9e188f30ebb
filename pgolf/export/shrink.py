"""Smaller source for the exported file: what was already checked, or is only said to people, goes; names get short.

The recipe inside was checked when it was frozen, so its components check themselves no more. Errors keep their class and
lose their words; a traceback still shows the line. Everything that computes stays as it is.
"""

import ast
from collections.abc import Iterable

import python_minifier

from pgolf.export.rename import rename
from pgolf.export.scopes import last_name

MARKERS = ("ClassVar", "InitVar", "KW_ONLY")  # annotations that `dataclass` reads
UNHEARD = "journal.event"  # an exported file has no logger


def quiet(source: str, components: Iterable[str], typed: Iterable[str] = ()) -> str:
    """A program without the words of errors, the strictness of `zip`, events for loggers, abstract methods, the checks of
    `components` (classes) and of all their bases, and annotations but for those of the components' fields named in `typed`.

    quiet("raise ValueError(f'{x} is too small')", []) == "raise ValueError"
    """
    tree = ast.parse(source)
    return ast.unparse(Quiet(families(tree, components), set(typed)).visit(tree))


def families(tree: ast.Module, components: Iterable[str]) -> set[str]:
    """Names of classes and of all their bases."""
    bases = {s.name: [ast.unparse(base) for base in s.bases] for s in tree.body if isinstance(s, ast.ClassDef)}
    found, waiting = set(), list(components)
    while waiting:
        name = waiting.pop()
        if name in bases and name not in found:
            found.add(name)
            waiting += bases[name]
    return found


class Quiet(ast.NodeTransformer):
    """`checked` are the classes whose instances need no more checks, `typed` their fields that keep a type."""

    def __init__(self, checked: set[str], typed: set[str]):
        self.checked, self.typed = checked, typed

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        component = node.name in self.checked
        node.bases = [base for base in node.bases if ast.unparse(base) != "ABC"]
        for decorator in (d for d in node.decorator_list if component and isinstance(d, ast.Call)):
            decorator.keywords = [k for k in decorator.keywords if k.arg != "kw_only"]  # made by keyword all the same
        body = [s for s in node.body if not (abstract(s) or (component and only_checks(s)))]
        if not node.decorator_list and "NamedTuple" not in map(last_name, node.bases):
            body = [s for s in body if not (isinstance(s, ast.AnnAssign) and s.value is None)]  # they make no fields
        for field in (s for s in body if isinstance(s, ast.AnnAssign)):
            marked = any(word in ast.unparse(field.annotation) for word in MARKERS)
            if not marked and not (component and ast.unparse(field.target) in self.typed):
                field.annotation = ast.Constant(0)
        node.body = body or [ast.Pass()]
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        if isinstance(node.exc, ast.Call):
            node.exc.args = [wordless(a) for a in node.exc.args]
            silent = [ast.unparse(a) for a in node.exc.args] == ["''"] and not node.exc.keywords
            node.exc = node.exc.func if silent else node.exc
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """zip(..., strict=True) asserts."""
        self.generic_visit(node)
        node.keywords = [k for k in node.keywords if not (k.arg == "strict" and last_name(node.func) == "zip")]
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        return ast.Pass() if only_raises(node, "ConfigError") else node

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        self.generic_visit(node)
        called = ast.unparse(node.value.func) if isinstance(node.value, ast.Call) else ""
        return ast.Pass() if called == "need" or called.endswith(UNHEARD) else node


def only_checks(statement: ast.stmt) -> bool:
    """A `__post_init__` that sets nothing."""
    return (
        isinstance(statement, ast.FunctionDef)
        and statement.name == "__post_init__"
        and "__setattr__" not in ast.unparse(statement)
    )


def abstract(statement: ast.stmt) -> bool:
    """A method that only says what classes below must have."""
    return any(ast.unparse(d) == "abstractmethod" for d in getattr(statement, "decorator_list", ()))


def only_raises(node: ast.If, error: str = "") -> bool:
    """`if ...: raise ...` and nothing else, of an `error` if one is named."""
    last = node.body[-1]
    return not node.orelse and isinstance(last, ast.Raise) and (ast.unparse(last.exc or last)).startswith(error)


def wordless(node: ast.expr) -> ast.expr:
    """Nothing for a message, which has spaces or values in it; single words are keys, and stay."""
    said = isinstance(node, ast.JoinedStr | ast.Call) or (isinstance(node, ast.Constant) and " " in str(node.value))
    return ast.Constant("") if said else node


def unguarded(source: str) -> str:
    """`source` without statements that can do nothing but raise."""
    return ast.unparse(Unguarded().visit(ast.parse(source)))


class Unguarded(ast.NodeTransformer):
    """Drops `if ...: raise ...`, and loops over nothing else."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        self.generic_visit(node)
        return None if only_raises(node) else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_For(self, node: ast.For) -> ast.AST | None:
        self.generic_visit(node)
        return node if node.body or node.orelse else None


def minified(source: str, kept: Iterable[str] = ()) -> str:
    """A program in few characters; of the names at its top only `kept` stay."""
    return python_minifier.minify(
        rename(source, kept),
        remove_literal_statements=True,
        hoist_literals=False,
        rename_locals=False,
        rename_globals=False,
        prefer_single_line=True,
    )
