"""Source without what only people and type checkers read: comments, docstrings, assertions, annotations, checking-only
imports.

What it leaves behaves the same; annotations of class fields stay, because dataclasses are made of them.
"""

import ast
from functools import cache

from pgolf.export.scopes import parameters


@cache
def strip(source: str, name: str) -> str:
    """`source` of module `name`, stripped, as text that compiles. strip("def f(x: int):\\n  'Twice.'\\n  return 2*x # !", "m")
    == "def f(x):\\n    return 2 * x"
    """
    tree = Stripper().visit(ast.parse(source, filename=name))
    text = ast.unparse(ast.fix_missing_locations(tree))
    compile(text, name, "exec")
    return text


class Stripper(ast.NodeTransformer):
    """Drops docstrings, assertions, `if TYPE_CHECKING:` and annotations but for those of class fields."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = self._body(node.body, empty=[])
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        fields = [s for s in node.body if isinstance(s, ast.AnnAssign)]
        for statement in fields:
            if isinstance(statement.value, ast.Call) and ast.unparse(statement.value.func) == "added":
                statement.value = (
                    None  # what a field means in older files: the exported file reads those that it writes
                )
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        node.body = self._body(node.body, empty=[ast.Pass()], fields=fields)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        node.body = self._body(node.body, empty=[ast.Pass()])
        node.returns = None
        for argument in parameters(node.args):
            argument.annotation = None
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        return self.visit_FunctionDef(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        self.generic_visit(node)
        if not _type_checking(node.test):
            return node
        return node.orelse or ast.Pass()

    def visit_Assert(self, node: ast.Assert) -> ast.Pass:
        return ast.Pass()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        return ast.Assign([node.target], node.value) if node.value else ast.Pass()

    def _body(
        self, body: list[ast.stmt], empty: list[ast.stmt], fields: list[ast.stmt] | None = None
    ) -> list[ast.stmt]:
        """Without strings that stand alone, docstrings among them."""
        visited = []
        for statement in body:
            if not (isinstance(statement, ast.Expr) and _is_text(statement.value)):
                new = statement if statement in (fields or []) else self.visit(statement)
                visited += new if isinstance(new, list) else [new]
        return [s for s in visited if not isinstance(s, ast.Pass)] or empty


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
