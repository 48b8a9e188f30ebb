"""A program without checks that were made before it was exported: those of the frozen recipe, and those of abstract classes.

What is not frozen (seed, ranks, threads, texts, artifacts) is checked in the file as in the package, with the same words.
"""

import ast
import re
from collections.abc import Iterable, Iterator

from pgolf.export.scopes import last_name

MARKERS = {"ClassVar", "InitVar", "KW_ONLY"}  # annotations that `dataclass` reads
NUMBERS = {"int", "float", "bool", "None"}  # types of fields that `thaw` takes as they are


def unchecked(source: str, components: Iterable[str]) -> str:
    """A program in which `components` (classes), all their bases and all that their fields may hold have no `__post_init__`
    that sets nothing; no class has methods that are abstract, unless `super()` is asked for them; and fields of
    dataclasses have no types, but for those of components that are not numbers.

    unchecked("class A:\n  x: int\n  def __post_init__(self): need(self.x > 0)", ["A"]) == "class A:\n    x: int"
    """
    tree = ast.parse(source)
    frozen, inherited = families(tree, components), set(asked_of_super(tree))
    for cls in tree.body:
        if isinstance(cls, ast.ClassDef):
            dropped = [s for s in cls.body if abstract(s) and s.name not in inherited]
            if cls.name in frozen:
                dropped += [s for s in cls.body if only_checks(s)]
            if any("dataclass" in ast.unparse(d) for d in cls.decorator_list):
                untyped(cls, NUMBERS if cls.name in frozen else None)
            cls.body = [s for s in cls.body if s not in dropped] or [ast.Pass()]
            if not any(map(abstract, cls.body)):
                cls.bases = [base for base in cls.bases if last_name(base) != "ABC"]
    return ast.unparse(ast.fix_missing_locations(tree))


def untyped(cls: ast.ClassDef, types: set[str] | None) -> None:
    """Give the fields of a dataclass annotations that say nothing, where `dataclass` reads only that there are some.

    With `types`, only fields of these: `thaw` reads the others.
    """
    for field in (s for s in cls.body if isinstance(s, ast.AnnAssign)):
        names = set(re.findall(r"\w+", ast.unparse(field.annotation)))
        if not names & MARKERS and (types is None or names <= types):
            field.annotation = ast.Constant(0)


def abstract(statement: ast.stmt) -> bool:
    """A method that only says what classes below must have."""
    return any(last_name(d) == "abstractmethod" for d in getattr(statement, "decorator_list", ()))


def asked_of_super(tree: ast.AST) -> Iterator[str]:
    """Attributes that are read of `super()`."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Call)
            and last_name(node.value.func) == "super"
        ):
            yield node.attr


def families(tree: ast.Module, components: Iterable[str]) -> set[str]:
    """Names of classes, of their bases, and of the classes that annotate their fields, however deep."""
    classes = {s.name: s for s in tree.body if isinstance(s, ast.ClassDef)}
    found, waiting = set(), list(components)
    while waiting:
        name = waiting.pop()
        if name in classes and name not in found:
            found.add(name)
            hints = [s.annotation for s in classes[name].body if isinstance(s, ast.AnnAssign)]
            waiting += [n.id for e in [*classes[name].bases, *hints] for n in ast.walk(e) if isinstance(n, ast.Name)]
    return found


def only_checks(statement: ast.stmt) -> bool:
    """A `__post_init__` that sets nothing."""
    return (
        isinstance(statement, ast.FunctionDef)
        and statement.name == "__post_init__"
        and "__setattr__" not in ast.unparse(statement)
    )
