"""A program as far as its frozen recipe leaves it open: comparisons, choices and branches that are settled go."""

import ast
from collections.abc import Iterable
from typing import Any

from pgolf.export.known import SOME, THING, Facts, pure

ROUNDS = 9  # what one settles may settle others


def fold(source: str, recipe: Any, components: Iterable[str]) -> str:
    """`source`, a whole program, with what `recipe` decides; objects of the classes `components` are made from it alone.

    fold("class A:\\n  x: 0\\ndef f(a): return 1 if a.x is None else 2", {"x": None}, ["A"]) ends with "return 1".
    """
    for _ in range(ROUNDS):
        tree = ast.parse(source)
        folder = Folder(Facts.of(tree, recipe, set(components)))
        source, before = ast.unparse(folder.visit(tree)), source
        if source == before:
            break
    return source


class Folder(ast.NodeTransformer):
    """Replaces what `facts` settle."""

    def __init__(self, facts: Facts):
        self.facts = facts

    def truth(self, node: ast.expr) -> bool | None:
        """Whether a test holds; None where that is open, or finding out does something."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.truth(node.operand)
            return None if inner is None else not inner
        if isinstance(node, ast.BoolOp):
            return self._junction(node)
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
            same = self._same(node.left, node.comparators[0])
            return same if same is None or isinstance(node.ops[0], ast.Is) else not same
        values = self.facts.values(node)
        return agreed(None if v is SOME or isinstance(v, str) else v is THING or bool(v) for v in values)

    def _junction(self, node: ast.BoolOp) -> bool | None:
        ends = isinstance(node.op, ast.Or)
        found = [self.truth(value) for value in node.values]
        if ends in found and all(pure(value) for value in node.values[: found.index(ends)]):
            return ends
        return not ends if set(found) == {not ends} else None

    def _same(self, left: ast.expr, right: ast.expr) -> bool | None:
        """Whether something is None, or a member of an enum."""
        values, other = (self.facts.values(node) for node in (left, right))
        enum = isinstance(right, ast.Attribute) and ast.unparse(right.value) in self.facts.enums
        if other == [None] or (enum and all(isinstance(v, str) for v in values)):
            return agreed(value == other[0] for value in values)
        return None

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._constant(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self._constant(node)

    def _constant(self, node: ast.Attribute | ast.Name) -> ast.expr:
        values = self.facts.values(node) if isinstance(node.ctx, ast.Load) else []
        if len(values) == 1 and (values[0] is None or isinstance(values[0], bool)):
            return ast.Constant(values[0])
        return self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        return self._settled(node)

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        return self._settled(node)

    def _settled(self, node: ast.Compare | ast.UnaryOp) -> ast.expr:
        truth = self.truth(node)
        return self.generic_visit(node) if truth is None else ast.Constant(truth)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        """Operands before the last that do not end it say nothing; one that does is the last."""
        ends = isinstance(node.op, ast.Or)
        kept = [v for v in node.values[:-1] if self.truth(v) is not (not ends)] + node.values[-1:]
        stop = next((i for i, value in enumerate(kept) if self.truth(value) is ends), len(kept))
        node.values = kept[: stop + 1]
        return self.generic_visit(node) if len(node.values) > 1 else self.visit(node.values[0])

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        truth = self.truth(node.test)
        return self.generic_visit(node) if truth is None else self.visit(node.body if truth else node.orelse)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        truth = self.truth(node.test)
        if truth is None:
            return self.generic_visit(node)
        inside = ast.Module(node.body if truth else node.orelse, [])
        return self.generic_visit(inside).body or ast.Pass()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Nothing is reached after a return, and a `pass` is only for what is empty."""
        self.generic_visit(node)
        ends = [i for i, s in enumerate(node.body) if isinstance(s, ast.Return | ast.Raise)]
        body = node.body[: ends[0] + 1] if ends else node.body
        node.body = [s for s in body if not isinstance(s, ast.Pass)] or [ast.Pass()]
        return node


def agreed(found: Iterable[bool | None]) -> bool | None:
    answers = set(found)
    return answers.pop() if len(answers) == 1 else None
