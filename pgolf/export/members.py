"""Short names for attributes that are ours alone: defined by classes with no foreign base, and unlike anything foreign.

A name stays if a string, a keyword or the recipe spells it, if its class is made from a mapping, if anything but `self`
sets it, or if an object from elsewhere has an attribute like it (`FOREIGN`): nobody but the program asks for the others.
"""

import ast
import string
from collections import Counter
from collections.abc import Iterable, Iterator

from pgolf.export.rename import fresh
from pgolf.export.scopes import FOREIGN, FUNCTIONS, Import, bound_names, last_name


def shorten(source: str, spelled: Iterable[str] = ()) -> str:
    """`source`, a whole program, with short names for attributes; those that are `spelled` elsewhere stay.

    shorten("class A:\\n  def double(self): pass\\nA().double()") has `def a(self)` and `A().a()`.
    """
    tree = ast.parse(source)
    elsewhere = {name for s in tree.body if isinstance(s, Import) for name in bound_names(s)}
    members = Members(tree, elsewhere)
    free = {name for name in members.own - members.foreign - FOREIGN - set(spelled) if not name.startswith("__")}
    order = sorted(free, key=lambda name: (-members.used[name], name))
    taken = {*members.used, *members.own, *members.foreign, *FOREIGN}
    names = dict(zip(order, (n for n in fresh(string.ascii_lowercase, taken)), strict=False))
    return ast.unparse(Renamed(names, elsewhere).visit(tree))


class Members:
    """Attribute names: those that plain classes define (`own`), and those that something else spells (`foreign`)."""

    def __init__(self, tree: ast.Module, elsewhere: set[str]):
        self.elsewhere = elsewhere
        self.plain = plain_classes(tree)
        self.classes = {s.name: s for s in tree.body if isinstance(s, ast.ClassDef)}
        self.own: set[str] = set()
        self.foreign: set[str] = set()
        self.used: Counter[str] = Counter()
        for node in ast.walk(tree):
            self._read(node)

    def _read(self, node: ast.AST) -> None:
        if isinstance(node, ast.ClassDef):
            (self.own if node.name in self.plain else self.foreign).update(defined(node))
        elif isinstance(node, ast.Attribute):
            self.used[node.attr] += 1
            if isinstance(node.ctx, ast.Store) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                self.foreign.add(node.attr)
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                self.foreign |= {keyword.arg} if keyword.arg else self._fields(last_name(node.func))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.foreign.add(node.value)

    def _fields(self, name: str) -> set[str]:
        """Of a class of ours and all its bases."""
        if name not in self.classes:
            return set()
        own = {ast.unparse(s.target) for s in self.classes[name].body if isinstance(s, ast.AnnAssign)}
        return own.union(*(self._fields(last_name(base)) for base in self.classes[name].bases))


def plain_classes(tree: ast.Module) -> set[str]:
    """Classes at the top all of whose bases are such classes."""
    found: set[str] = set()
    for statement in tree.body:  # a base comes before what is made of it
        if isinstance(statement, ast.ClassDef) and all(ast.unparse(base) in found for base in statement.bases):
            found.add(statement.name)
    return found


def defined(cls: ast.ClassDef) -> Iterator[str]:
    """Names that a class gives its objects: methods, fields, and what its methods set."""
    for statement in cls.body:
        if isinstance(statement, FUNCTIONS):
            yield statement.name
            for node in ast.walk(statement):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    yield node.attr
        else:
            yield from bound_names(statement)


class Renamed(ast.NodeTransformer):
    def __init__(self, names: dict[str, str], elsewhere: set[str]):
        self.names, self.elsewhere = names, elsewhere

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        self.generic_visit(node)
        if not (isinstance(node.value, ast.Name) and node.value.id in self.elsewhere):
            node.attr = self.names.get(node.attr, node.attr)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        for statement in node.body:
            if isinstance(statement, FUNCTIONS):
                statement.name = self.names.get(statement.name, statement.name)
            for target in getattr(statement, "targets", [getattr(statement, "target", None)]):
                if isinstance(target, ast.Name):
                    target.id = self.names.get(target.id, target.id)
        return node
