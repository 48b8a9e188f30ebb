"""Source without what only people and type checkers read: comments, docstrings, annotations of functions, checking-only imports.

What it leaves behaves the same; annotations of class fields stay, because dataclasses are made of them.
"""

import ast


def strip(source: str, name: str) -> str:
    """`source` of module `name`, stripped, as text that compiles. strip("def f(x: int):\\n  'Twice.'\\n  return 2*x # !", "m")
    == "def f(x):\\n    return 2 * x"
    """
    tree = Stripper().visit(ast.parse(source, filename=name))
    text = ast.unparse(ast.fix_missing_locations(tree))
    compile(text, name, "exec")
    return text


class Stripper(ast.NodeTransformer):
    """Drops docstrings, `if TYPE_CHECKING:` and annotations of functions that no decorator could read."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = self._body(node.body, empty=[])
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        node.body = self._body(node.body, empty=[ast.Pass()])
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        return self._function(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        self.generic_visit(node)
        if not _type_checking(node.test):
            return node
        return node.orelse or ast.Pass()

    def _function(self, node):
        node.body = self._body(node.body, empty=[ast.Pass()])
        if not node.decorator_list:
            node.returns = None
            for a in _arguments(node.args):
                a.annotation = None
        return node

    def _body(self, body: list[ast.stmt], empty: list[ast.stmt]) -> list[ast.stmt]:
        """Without strings that stand alone, docstrings among them."""
        kept = [s for s in body if not (isinstance(s, ast.Expr) and _is_text(s.value))]
        visited = []
        for statement in kept:
            new = self.visit(statement)
            visited += new if isinstance(new, list) else [new]
        return [s for s in visited if not isinstance(s, ast.Pass)] or empty


def _arguments(args: ast.arguments) -> list[ast.arg]:
    starred = [a for a in (args.vararg, args.kwarg) if a]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *starred]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
