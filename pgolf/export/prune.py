"""Which definitions of a program can ever be reached from some roots, and the program with the others left out.

Nothing is run: reachability is read from names in the source, and every doubt keeps. A function, class or constant stays
if something that stays names it; a method stays if its class does and anything reads an attribute like it.
"""

import ast
from collections.abc import Iterable, Iterator

from pgolf.export.scopes import FUNCTIONS, bound_names, last_name

INERT = {"dataclass", "command", "cache", "lru_cache", "contextmanager", "no_grad", "inference_mode"}  # decorators
PLAIN_BASES = {"ABC", "object"}  # call none of a class's methods by name
BY_NAME = {"getattr", "hasattr", "methodcaller", "attrgetter"}  # read attributes that are named in strings


def prune(source: str, roots: Iterable[str]) -> str:
    """`source`, a whole program, without what `roots` (names at its top) cannot reach.

    prune("def f(): return g()\\ndef g(): pass\\ndef h(): pass", ["f"]) keeps f and g.
    """
    walk = Walk(ast.parse(source))
    for root in sorted(roots):
        walk.reach(root)
    walk.run()
    return walk.written()


class Walk:
    """Reachability, as far as it has got: statements and methods kept, attributes that anything has read."""

    def __init__(self, tree: ast.Module):
        self.tree = tree
        self.bound: dict[str, list[ast.stmt]] = {}
        self.kept: set[str] = set()
        self.statements: set[ast.stmt] = set()
        self.methods: set[ast.stmt] = set()
        self.attributes: set[str] = set()
        self.words = words(tree)
        self.waiting: list[ast.AST] = []
        for statement in tree.body:
            for name in bound_names(statement):
                self.bound.setdefault(name, []).append(statement)
        for statement in tree.body:
            if acts(statement):
                self._keep(statement)

    def reach(self, name: str) -> None:
        """Keep a name and all that its statements use."""
        if name not in self.kept:
            self.kept.add(name)
            for statement in self.bound.get(name, []):
                self._keep(statement)

    def _keep(self, statement: ast.stmt) -> None:
        if statement not in self.statements:
            self.statements.add(statement)
            self.waiting.append(statement)

    def run(self) -> None:
        """Until nothing new is named."""
        while self.waiting or self._new_methods():
            self._read(self.waiting.pop())

    def _new_methods(self) -> bool:
        for cls in [s for s in self.statements if isinstance(s, ast.ClassDef)]:
            for method in self._optional(cls) - self.methods:
                if method.name in self.attributes:
                    self.methods.add(method)
                    self.waiting.append(method)
        return bool(self.waiting)

    def _optional(self, cls: ast.ClassDef) -> set[ast.stmt]:
        """The methods of a class that only a name could call: not the language's own, and no framework's."""
        if not self._plain(cls):
            return set()
        named = {s for s in cls.body if isinstance(s, FUNCTIONS)}
        return {s for s in named if not (s.name.startswith("__") and s.name.endswith("__"))}

    def _plain(self, cls: ast.ClassDef) -> bool:
        """Whether all its bases are known not to call its methods: ours of that kind, or none."""
        return not cls.keywords and all(self._plain_base(ast.unparse(base)) for base in cls.bases)

    def _plain_base(self, name: str) -> bool:
        found = self.bound.get(name, [])
        return name in PLAIN_BASES or bool(found and all(isinstance(s, ast.ClassDef) and self._plain(s) for s in found))

    def _read(self, node: ast.AST) -> None:
        """Follow every name in a statement that stays, but not into methods that may go."""
        for inner in self._walked(node):
            if isinstance(inner, ast.Name):
                self.reach(inner.id)
            elif isinstance(inner, ast.Attribute) and not isinstance(inner.ctx, ast.Store):
                self.attributes.add(inner.attr)
            elif isinstance(inner, ast.MatchClass):
                self.attributes |= set(inner.kwd_attrs)
            elif isinstance(inner, ast.Call) and last_name(inner.func) in BY_NAME:
                self._by_name(inner)

    def _by_name(self, call: ast.Call) -> None:
        """The attributes that a call may read: those its strings name, or, when it has none, those that any string names."""
        self.attributes |= words(call) or self.words

    def _walked(self, node: ast.AST) -> Iterator[ast.AST]:
        skipped = self._optional(node) - self.methods if isinstance(node, ast.ClassDef) else set()
        waiting = [node]
        while waiting:
            inner = waiting.pop()
            yield inner
            waiting += [child for child in ast.iter_child_nodes(inner) if child not in skipped]

    def written(self) -> str:
        """The source of what stays."""
        kept = [self._without_methods(s) for s in self.tree.body if s in self.statements or is_mark(s)]
        body = [s for s, after in zip(kept, [*kept[1:], None], strict=True) if not (is_mark(s) and is_mark(after))]
        return ast.unparse(ast.Module(body, []))

    def _without_methods(self, statement: ast.stmt) -> ast.stmt:
        if isinstance(statement, ast.ClassDef):
            gone = self._optional(statement) - self.methods
            statement.body = [s for s in statement.body if s not in gone] or [ast.Pass()]
        return statement


def words(node: ast.AST) -> set[str]:
    """Identifiers among the strings below a node."""
    found = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {word for word in found if word.isidentifier()}


def is_mark(statement: ast.stmt | None) -> bool:
    """A string that stands alone, or the end: it says where what follows comes from."""
    return statement is None or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))


def acts(statement: ast.stmt) -> bool:
    """Whether a statement may do more than bind names: one that binds none, or whose decorator may file it somewhere."""
    decorators = [d.func if isinstance(d, ast.Call) else d for d in getattr(statement, "decorator_list", [])]
    decorated = any(last_name(d).rstrip("_") not in INERT for d in decorators)  # `merge` may have added these
    return decorated or not (is_mark(statement) or is_main_guard(statement) or list(bound_names(statement)))


def is_main_guard(statement: ast.stmt) -> bool:
    """`if __name__ == "__main__":` is never true of an imported module."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"
