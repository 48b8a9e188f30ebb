"""What a frozen recipe decides of a program: attributes and parameters that can only have some values.

An attribute is known by its name alone: as far as all in the recipe and the program that can bind that name, in whatever
class, agrees, and no object from elsewhere has one like it. A parameter is known by all calls. Every doubt is UNKNOWN.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pgolf.export.scopes import FOREIGN, FUNCTIONS, Import, binds, bound_names, last_name, parameters

UNKNOWN, THING, SOME = object(), object(), object()  # anything; an object, so true and not None; not None
BY_NAME = {"setattr", "__setattr__", "register_buffer", "register_parameter", "add_module"}  # bind what a string names
CONSTANTS = (type(None), bool, int, float, str)
Values = list  # every value that something can have; empty where it may have any


@dataclass
class Facts:
    """The values of attributes, of what methods return, and of parameters (function, parameter)."""

    attributes: dict[str, Values] = field(default_factory=dict)
    returned: dict[str, Values] = field(default_factory=dict)
    parameters: dict[tuple[str, str], Values] = field(default_factory=dict)
    contexts: dict[int, str] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)  # names of modules, of whose attributes nothing is known
    enums: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, tree: ast.Module, recipe: Any, components: set[str]) -> "Facts":
        """Of a program; objects of `components` are made from the recipe alone."""
        elsewhere = {n for s in tree.body if isinstance(s, Import) for n in bound_names(s)}
        classes = [s for s in tree.body if isinstance(s, ast.ClassDef)]
        enums = {c.name for c in classes if [ast.unparse(base) for base in c.bases] == ["Enum"]}
        facts = cls(contexts=contexts(tree), elsewhere=elsewhere, enums=enums)
        foreign = [(name, UNKNOWN) for name in FOREIGN]
        facts.attributes = _collected([*foreign, *fields(recipe), *bindings(tree, components)])
        facts.returned = _collected([*foreign, *returns(tree)])
        calls = Calls(tree)
        for _ in range(3):  # from caller to callee to callee
            facts.parameters = _collected(calls.given(facts))
        return facts

    def values(self, node: ast.expr) -> Values:
        """All that an expression can be, if working it out does nothing else."""
        if isinstance(node, ast.Constant) and isinstance(node.value, CONSTANTS):
            return [node.value]
        if isinstance(node, ast.Name):
            return self.parameters.get((self.contexts.get(id(node)), node.id), [])
        if isinstance(node, ast.Attribute) and pure(node):
            if isinstance(node.value, ast.Name) and node.value.id in self.enums:
                return [node.attr]
            return [] if root(node) in self.elsewhere else self.attributes.get(node.attr, [])
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and all(map(pure, [node.func, *node.args]))
        ):
            return [] if node.keywords or root(node.func) in self.elsewhere else self.returned.get(node.func.attr, [])
        return []


def _collected(pairs: Iterator[tuple[Any, Any]]) -> dict[Any, Values]:
    found: dict[Any, dict] = {}
    for name, value in pairs:
        found.setdefault(name, {})[type(value), value] = value  # True is not 1
    return {name: list(values.values()) for name, values in found.items() if UNKNOWN not in values.values()}


def fields(recipe: Any) -> Iterator[tuple[str, Any]]:
    """(key, value) of everything in a recipe, however deep."""
    for key, value in recipe.items() if isinstance(recipe, dict) else ():
        yield key, value if isinstance(value, CONSTANTS) else THING if isinstance(value, dict) else SOME
    for value in recipe.values() if isinstance(recipe, dict) else recipe if isinstance(recipe, list) else ():
        yield from fields(value)


def bindings(tree: ast.Module, components: set[str]) -> Iterator[tuple[str, Any]]:
    """(attribute, value) of all that binds attributes in a program: classes, assignments, and keywords of calls."""
    things = {s.name: SOME if s.bases else THING for s in tree.body if isinstance(s, ast.ClassDef)}
    plain = {
        id(place): value for node in ast.walk(tree) if isinstance(node, ast.Assign) for place, value in assigned(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from _of_class(node, node.name in components)
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            ours = isinstance(node.value, ast.Name) and node.value.id == "self" and id(node) in plain
            yield node.attr, value_of(plain[id(node)], things) if ours else UNKNOWN
        elif isinstance(node, ast.Call):
            yield from ((keyword.arg, UNKNOWN) for keyword in node.keywords if keyword.arg)
            if last_name(node.func) in BY_NAME:
                yield from ((n.value, UNKNOWN) for n in node.args if isinstance(n, ast.Constant))


def assigned(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(place, value) of an assignment, taken apart where both sides are written out."""
    for target in node.targets:
        both = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
        if both and len(target.elts) == len(node.value.elts):
            yield from zip(target.elts, node.value.elts, strict=True)
        else:
            yield target, node.value


def value_of(node: ast.expr, things: dict[str, Any]) -> Any:
    """A constant, what is known of an object of a class of ours, or UNKNOWN."""
    if isinstance(node, ast.Constant) and isinstance(node.value, CONSTANTS):
        return node.value
    made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return things.get(node.func.id, UNKNOWN) if made else UNKNOWN


def _of_class(node: ast.ClassDef, component: bool) -> Iterator[tuple[str, Any]]:
    for statement in node.body:
        if isinstance(statement, FUNCTIONS):
            is_property = [ast.unparse(d) for d in statement.decorator_list] == ["property"]
            yield statement.name, _returned(statement) if is_property else UNKNOWN
        elif isinstance(statement, ast.Assign):
            yield from ((name, value_of(statement.value, {})) for name in bound_names(statement))
        elif isinstance(statement, ast.AnnAssign) and not component:
            yield ast.unparse(statement.target), UNKNOWN


def returns(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    """(name, value) of what every function returns; an attribute that is set may be another."""
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            yield node.name, _returned(node)
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield node.attr, UNKNOWN


def _returned(function: ast.FunctionDef) -> Any:
    """What a function that does nothing else always returns."""
    only = function.body[0]
    if isinstance(only, ast.Pass) and len(function.body) == 1:
        return None
    return value_of(only.value, {}) if isinstance(only, ast.Return) and only.value else UNKNOWN


def contexts(tree: ast.Module) -> dict[int, str]:
    """For every node inside a function at the top, or in a class's `__init__`, the name of that function or class."""
    found = {}
    for statement in tree.body:
        for function in callables(statement):
            found |= {id(node): statement.name for node in ast.walk(function)}
    return found


def callables(statement: ast.stmt) -> list[ast.FunctionDef]:
    """The function that calling the name of a definition runs."""
    inside = statement.body if isinstance(statement, ast.ClassDef) else [statement]
    wanted = "__init__" if isinstance(statement, ast.ClassDef) else getattr(statement, "name", None)
    return [s for s in inside if isinstance(s, FUNCTIONS) and s.name == wanted]


class Calls:
    """All calls of what is at the top, and the parameters that other things reach too."""

    def __init__(self, tree: ast.Module):
        self.known = {s.name: function for s in tree.body for function in callables(s)}
        nodes = list(ast.walk(tree))
        self.calls = [n for n in nodes if isinstance(n, ast.Call) and last_name(n.func) in self.known]
        self.calls = [call for call in self.calls if isinstance(call.func, ast.Name)]
        called = {id(call.func) for call in self.calls}
        handed_on = {n.id for n in nodes if isinstance(n, ast.Name) and n.id in self.known and id(n) not in called}
        again = {
            s.name for s in tree.body if isinstance(s, ast.ClassDef) and "cls" in {last_name(n) for n in ast.walk(s)}
        }
        self.open = {(name, p.arg) for name in handed_on | again for p in self._parameters(name)}
        self.open |= {(name, bound) for name, function in self.known.items() for bound in _rebound(function)}

    def _parameters(self, name: str) -> list[ast.arg]:
        return parameters(self.known[name].args) if name in self.known else []

    def given(self, facts: Facts) -> Iterator[tuple[tuple[str, str], Any]]:
        """((function or class, parameter), value) of every call."""
        yield from ((place, UNKNOWN) for place in self.open)
        for call in self.calls:
            yield from _given(call, self.known[call.func.id], facts)


def _given(call: ast.Call, function: ast.FunctionDef, facts: Facts) -> Iterator[tuple[tuple[str, str], Any]]:
    """What one call gives every parameter; a default where it gives nothing."""
    args = function.args
    places = args.args[1:] if function.name == "__init__" else args.args
    told = dict(zip([a.arg for a in places], call.args, strict=False)) | {
        k.arg: k.value for k in call.keywords if k.arg
    }
    spread = any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)
    late = zip(reversed(args.args), reversed(args.defaults), strict=False)
    defaults = {a.arg: value for a, value in [*late, *zip(args.kwonlyargs, args.kw_defaults, strict=True)] if value}
    for parameter in parameters(args):
        node = None if spread or parameter in (args.vararg, args.kwarg) else (defaults | told).get(parameter.arg)
        for value in (facts.values(node) if node else []) or [UNKNOWN]:
            yield (call.func.id, parameter.arg), value


def _rebound(function: ast.FunctionDef) -> Iterator[str]:
    """Parameters that are bound again somewhere inside."""
    for node in (inner for statement in function.body for inner in ast.walk(statement)):
        yield from binds(node)
        if isinstance(node, ast.Lambda | ast.FunctionDef):
            yield from (a.arg for a in parameters(node.args))


def pure(node: ast.expr) -> bool:
    """Whether working it out does nothing else: a name, and attributes of it."""
    return isinstance(node, ast.Name | ast.Constant) or (isinstance(node, ast.Attribute) and pure(node.value))


def root(node: ast.expr) -> str:
    """The name that a pure chain of attributes starts from."""
    return root(node.value) if isinstance(node, ast.Attribute) else ast.unparse(node)
