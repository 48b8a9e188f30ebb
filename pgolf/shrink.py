"""Smaller source for the exported file: what was already checked, or is only said to people, goes; local names get short.

The recipe inside was checked when it was frozen, so its components check themselves no more. Errors keep their class and
their values and lose their words. Everything that computes stays as it is, and so do the names that modules share.
"""

import ast
import builtins
from collections.abc import Iterable, Mapping

import python_minifier

from pgolf.prune import imported

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MARKERS = ("ClassVar", "InitVar", "KW_ONLY")  # annotations that `dataclass` reads
ANNOTATIONS = python_minifier.RemoveAnnotationsOptions(
    remove_variable_annotations=True,
    remove_return_annotations=True,
    remove_argument_annotations=True,
    remove_class_attribute_annotations=False,
)


def quiet(
    modules: Mapping[str, str], components: Iterable[str], trusted: Iterable[str] = (), typed: Iterable[str] = ()
) -> dict[str, str]:
    """`modules` without the words of errors, abstract methods, the checks of `components` (dotted class names) and of all
    their bases, annotations but for those of the components' fields named in `typed`, and, in modules that are `trusted`,
    statements that can do nothing but raise.

    quiet({"m": "raise ValueError(f'{x} is too small')"}, []) == {"m": "raise ValueError(f'{x}')"}
    """
    trees = {name: ast.parse(source) for name, source in modules.items()}
    for name in set(trusted) & trees.keys():
        trees[name] = Unguarded().visit(trees[name])
    checked, kept = families(trees, components), set(typed)
    return {name: ast.unparse(Quiet(name, checked, kept).visit(tree)) for name, tree in trees.items()}


def families(trees: Mapping[str, ast.Module], components: Iterable[str]) -> set[str]:
    """Dotted names of classes, where they are defined, and of all their bases."""
    found: set[str] = set()
    waiting = list(components)
    while waiting:
        module, _, name = waiting.pop().rpartition(".")
        for statement in trees[module].body if module in trees else ():
            if isinstance(statement, ast.ClassDef) and statement.name == name and f"{module}.{name}" not in found:
                found.add(f"{module}.{name}")
                waiting += [f"{module}.{ast.unparse(base)}" for base in statement.bases]
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                waiting += [dotted for bound, dotted in imported(statement, module) if bound == name]
    return found


class Unguarded(ast.NodeTransformer):
    """Drops `if ...: raise ...`, and loops over nothing else."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        self.generic_visit(node)
        return None if isinstance(node.body[0], ast.Raise) and not node.orelse else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_For(self, node: ast.For) -> ast.AST | None:
        self.generic_visit(node)
        return node if node.body or node.orelse else None


class Quiet(ast.NodeTransformer):
    """One module; `checked` are the classes whose instances need no more checks, `typed` their fields that keep a type."""

    def __init__(self, module: str, checked: set[str], typed: set[str]):
        self.module, self.checked, self.typed = module, checked, typed

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        component = f"{self.module}.{node.name}" in self.checked
        node.bases = [base for base in node.bases if ast.unparse(base) != "ABC"]
        body = [s for s in node.body if not (abstract(s) or (component and only_checks(s)))]
        for field in (s for s in body if isinstance(s, ast.AnnAssign)):
            marked = any(word in ast.unparse(field.annotation) for word in MARKERS)
            if not marked and not (component and ast.unparse(field.target) in self.typed):
                field.annotation = ast.Constant(0)
        node.body = body or [ast.Pass()]
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        if isinstance(node.exc, ast.Call):
            node.exc.args = [wordless(a) for a in node.exc.args]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "need":
            node.value.args[1:] = [wordless(a) for a in node.value.args[1:]]
        return node


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


def wordless(node: ast.expr) -> ast.expr:
    """A message with its values and without its words, nor what is worked out for it alone; single words are keys, and stay."""
    if isinstance(node, ast.JoinedStr):
        values = [v for v in node.values if isinstance(v, ast.FormattedValue) and at_hand(v.value)]
        spaced = [part for value in values for part in (ast.Constant(" "), value)]
        return ast.JoinedStr(spaced[1:])
    if isinstance(node, ast.Call) or (isinstance(node, ast.Constant) and " " in str(node.value)):
        return ast.Constant("")
    return node


def at_hand(node: ast.expr) -> bool:
    return not any(isinstance(inner, ast.Call) for inner in ast.walk(node))


def minified(modules: Mapping[str, str]) -> dict[str, str]:
    """`modules`, each on as few characters as python-minifier finds, with parameters renamed that no call names."""
    trees = {name: ast.parse(source) for name, source in modules.items()}
    named = Named(trees.values())
    return {name: minify(ast.unparse(positional(tree, named)), name) for name, tree in trees.items()}


def minify(source: str, name: str) -> str:
    return python_minifier.minify(
        source,
        name,
        remove_annotations=ANNOTATIONS,
        remove_asserts=True,
        hoist_literals=False,
        rename_globals=False,
    )


class Named:
    """What calls may name parameters by: keywords, and, where a `**mapping` is spread, any word in quotes.

    Calls that only reach other libraries do not count: an import from elsewhere, or a builtin, given no function of ours.
    """

    def __init__(self, trees: Iterable[ast.Module]):
        nodes = [node for tree in trees for node in ast.walk(tree)]
        self.functions = {n.name for n in nodes if isinstance(n, FUNCTIONS)}
        self.classes = {n.name for n in nodes if isinstance(n, ast.ClassDef)} | {"cls"}
        words = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        self.words = {word for word in words if word.isidentifier()}
        self.foreign = {
            alias.asname or alias.name.partition(".")[0]
            for n in nodes
            if isinstance(n, ast.Import) or (isinstance(n, ast.ImportFrom) and n.module.partition(".")[0] != "pgolf")
            for alias in n.names
        }
        self.by_keyword: set[str] = set()
        self.to_classes: set[str] = set()
        for node in nodes:
            if isinstance(node, ast.Call):
                self._call(node)

    def _call(self, node: ast.Call) -> None:
        callee, root = ast.unparse(node.func).rpartition(".")[2], ast.unparse(node.func).partition(".")[0]
        passed_on = any(ast.unparse(a).rpartition(".")[2] in self.functions for a in node.args)
        if (root in self.foreign or hasattr(builtins, root)) and not passed_on:
            return
        given = set()
        for keyword in node.keywords:
            given |= {keyword.arg} if keyword.arg else self.words
        if callee in self.classes and callee not in self.functions:
            self.to_classes |= given
        else:
            self.by_keyword |= given

    def may_name(self, function: str, parameter: str) -> bool:
        named = self.by_keyword | self.to_classes if function == "__init__" else self.by_keyword
        return parameter in named


def positional(tree: ast.Module, named: Named) -> ast.Module:
    """Parameters that no call names become positional, which lets the minifier rename them (and drop the slash again)."""
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            args = node.args
            free = [not named.may_name(node.name, a.arg) for a in args.args]
            count = free.index(False) if False in free else len(free)
            args.posonlyargs, args.args = [*args.posonlyargs, *args.args[:count]], args.args[count:]
    return tree
