"""Which definitions of a set of modules can ever be reached from some roots, and the modules with the others left out.

Nothing is imported: reachability is read from names in the source, and every doubt keeps. A function, class or constant
stays if something that stays names it; a method stays if its class does and anything names an attribute like it.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping

INERT = {"dataclass", "cache", "lru_cache", "contextmanager", "torch.no_grad", "torch.inference_mode"}  # decorators
PLAIN_BASES = {"ABC", "object"}  # call none of a class's methods by name
Name = tuple[str, str]  # module, and a name bound at its top
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def prune(modules: Mapping[str, str], roots: Iterable[str], never: Iterable[str] = ()) -> dict[str, str]:
    """The sources of `modules` (dotted name -> source) without what `roots` (dotted definitions) cannot reach.

    Definitions in `never` are left out even where they are named, and out of tables: what would use them must not run.
    Modules of which nothing is left are left out.

    prune({"m": "def f(): return g()\\ndef g(): pass\\ndef h(): pass"}, ["m.f"]) keeps f and g.
    """
    walk = Walk({name: Definitions(name, source) for name, source in modules.items()}, set(never))
    for root in sorted(roots):
        walk.reach(*root.rpartition(".")[::2])
    walk.run()
    texts = {name: walk.written(name) for name in sorted(modules)}
    return {name: text for name, text in texts.items() if text or name in walk.entered}


class Definitions:
    """One module's top-level statements, by the names that they bind; those that bind none run whenever it is imported."""

    def __init__(self, module: str, source: str):
        self.tree = ast.parse(source)
        self.bound: dict[str, list[ast.stmt]] = {}
        self.always: list[ast.stmt] = []
        self.imports: dict[str, str] = {}  # local name -> dotted name it stands for
        self.aliases: dict[str, set[str]] = {}  # the same, and of imports inside functions
        for statement in self.tree.body:
            names = list(bound_names(statement))
            for name in names:
                self.bound.setdefault(name, []).append(statement)
            if not names or acts(statement):
                self.always.append(statement)
            if isinstance(statement, ast.Import | ast.ImportFrom):
                assert not any(alias.name == "*" for alias in statement.names), f"{module}: import *"
                self.imports |= dict(imported(statement, module))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name, dotted in imported(node, module):
                    self.aliases.setdefault(name, set()).add(dotted)


def bound_names(statement: ast.stmt) -> Iterator[str]:
    """Names that a definition, an import or a plain assignment binds; nothing for statements that do other things."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (local(alias) for alias in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [node for target in targets for node in (target.elts if isinstance(target, ast.Tuple) else [target])]
        if all(isinstance(node, ast.Name) for node in names):
            yield from (node.id for node in names)


def acts(statement: ast.stmt) -> bool:
    """Whether a definition may do more than bind its name: a decorator that is not known may file it somewhere."""
    return any(_called(d) not in INERT for d in getattr(statement, "decorator_list", []))


def _called(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def local(alias: ast.alias) -> str:
    """The name that an import binds. `import a.b` binds a."""
    return alias.asname or alias.name.partition(".")[0]


def imported(statement: ast.Import | ast.ImportFrom, module: str) -> Iterator[tuple[str, str]]:
    """(local name, dotted name it stands for) of an absolute import."""
    if isinstance(statement, ast.Import):
        ours = module.partition(".")[0] + "."
        assert all(a.asname or not a.name.startswith(ours) for a in statement.names), f"{module}: import a.b without as"
        yield from ((local(a), a.name if a.asname else local(a)) for a in statement.names)
    else:
        assert statement.level == 0, f"{module}: a relative import"
        yield from ((local(a), f"{statement.module}.{a.name}") for a in statement.names)


class Walk:
    """Reachability, as far as it has got: names kept, classes kept, attributes that anything has named."""

    def __init__(self, modules: dict[str, Definitions], never: set[str]):
        self.modules, self.never = modules, never
        self.entered: set[str] = set()  # modules that are imported, if only for a submodule
        self.kept: set[Name] = set()
        self.statements: set[ast.stmt] = set()
        self.methods: set[ast.stmt] = set()
        self.attributes: set[str] = set()
        self.waiting: list[tuple[str, ast.AST]] = []
        self.classes: list[tuple[str, ast.ClassDef]] = []

    def reach(self, module: str, name: str) -> None:
        """Keep a name of a module, or, where it is a submodule, enter that."""
        if f"{module}.{name}" in self.modules and name not in getattr(self.modules.get(module), "bound", ()):
            return self.enter(f"{module}.{name}")
        if module not in self.modules or (module, name) in self.kept or f"{module}.{name}" in self.never:
            return None
        self.kept.add((module, name))
        self.enter(module)
        for statement in self.modules[module].bound.get(name, []):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self._follow(self.modules[module].imports[name])
            else:
                self._keep(module, statement)
        return None

    def enter(self, module: str) -> None:
        """Importing a module runs its parents and what it does at its top."""
        parent = module.rpartition(".")[0]
        if parent in self.modules:
            self.enter(parent)
        if module not in self.entered:
            self.entered.add(module)
            for statement in self.modules[module].always:
                self._keep(module, statement)

    def _follow(self, dotted: str) -> None:
        if dotted in self.modules:
            self.enter(dotted)
        else:
            self.reach(*dotted.rpartition(".")[::2])

    def _keep(self, module: str, statement: ast.stmt) -> None:
        if statement in self.statements or is_main_guard(statement):
            return
        self.statements.add(statement)
        if isinstance(statement, ast.ClassDef):
            self.classes.append((module, statement))
        self.waiting.append((module, statement))

    def run(self) -> None:
        """Until nothing new is named."""
        while self.waiting or self._new_methods():
            module, node = self.waiting.pop()
            self._read(module, node)

    def _new_methods(self) -> bool:
        for module, cls in self.classes:
            for method in optional_methods(cls, self._plain(module, cls)):
                if method not in self.methods and method.name in self.attributes:
                    self.methods.add(method)
                    self.waiting.append((module, method))
        return bool(self.waiting)

    def _plain(self, module: str, cls: ast.ClassDef) -> bool:
        """Whether all its bases are known not to call its methods: ours of that kind, or none. (A cycle cannot import.)"""
        return not cls.keywords and all(self._plain_base(module, base) for base in cls.bases)

    def _plain_base(self, module: str, base: ast.expr) -> bool:
        name = ast.unparse(base)
        if name in PLAIN_BASES:
            return True
        if name in self.modules[module].imports:
            module, _, name = self.modules[module].imports[name].rpartition(".")
        found = self.modules[module].bound.get(name, []) if module in self.modules else []
        return bool(found) and all(isinstance(s, ast.ClassDef) and self._plain(module, s) for s in found)

    def _read(self, module: str, node: ast.AST) -> None:
        """Follow every name in a statement that stays, but not into methods that may go."""
        for inner in self._walked(module, node):
            if isinstance(inner, ast.Name):
                self.reach(module, inner.id)
                self._handed_on(module, inner.id)
            elif isinstance(inner, ast.Attribute):
                self.attributes.add(inner.attr)
                self._member(module, inner)
            elif isinstance(inner, ast.Import | ast.ImportFrom):
                for _, dotted in imported(inner, module):
                    self._follow(dotted)
            elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and inner.value.isidentifier():
                self.attributes.add(inner.value)  # getattr, methodcaller, a quoted annotation
                self.reach(module, inner.value)
            elif isinstance(inner, ast.keyword) and inner.arg:
                self.attributes.add(inner.arg)

    def _walked(self, module: str, node: ast.AST) -> Iterator[ast.AST]:
        skipped = (
            set(optional_methods(node, self._plain(module, node))) - self.methods
            if isinstance(node, ast.ClassDef)
            else set()
        )
        waiting = [node]
        while waiting:
            inner = waiting.pop()
            yield inner
            if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
                self.reach(module, inner.value.id)  # m of m.x: named, but not handed on
            else:
                waiting += [child for child in ast.iter_child_nodes(inner) if child not in skipped]

    def _member(self, module: str, node: ast.Attribute) -> None:
        """`m.x` where m is one of our modules names x there."""
        if isinstance(node.value, ast.Name):
            for dotted in self.modules[module].aliases.get(node.value.id, ()):
                if dotted in self.modules:
                    self.reach(dotted, node.attr)

    def _handed_on(self, module: str, name: str) -> None:
        """A module of ours by itself could be asked for anything."""
        for dotted in self.modules[module].aliases.get(name, ()):
            for bound in self.modules[dotted].bound if dotted in self.modules else ():
                self.reach(dotted, bound)

    def written(self, module: str) -> str:
        """The module's source with what stays."""
        body = []
        self._shorten_tables(module)
        for statement in self.modules[module].tree.body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                body += self._import(module, statement)
            elif statement in self.statements:
                body.append(self._without_methods(module, statement))
        return ast.unparse(ast.Module(body, []))

    def _shorten_tables(self, module: str) -> None:
        """Take the entries `key: name` out of dict displays whose name is never used."""
        for node in ast.walk(self.modules[module].tree):
            if isinstance(node, ast.Dict):
                pairs = [
                    p
                    for p in zip(node.keys, node.values, strict=True)
                    if f"{module}.{ast.unparse(p[1])}" not in self.never
                ]
                node.keys, node.values = [key for key, _ in pairs], [value for _, value in pairs]

    def _import(self, module: str, statement: ast.Import | ast.ImportFrom) -> list[ast.stmt]:
        names = [alias for alias in statement.names if (module, local(alias)) in self.kept]
        if isinstance(statement, ast.ImportFrom):
            gone = {a for a in names if f"{statement.module}.{a.name}" in self.never}
            names = [a for a in names if a not in gone]
            return [ast.ImportFrom(statement.module, names, statement.level)] if names else []
        return [ast.Import(names)] if names else []

    def _without_methods(self, module: str, statement: ast.stmt) -> ast.stmt:
        if isinstance(statement, ast.ClassDef):
            gone = set(optional_methods(statement, self._plain(module, statement))) - self.methods
            statement.body = [s for s in statement.body if s not in gone] or [ast.Pass()]
        return statement


def optional_methods(cls: ast.ClassDef, plain: bool) -> list[ast.stmt]:
    """The methods of a class that only a name could call: not the language's own, and no framework's."""
    if not plain:
        return []
    return [s for s in cls.body if isinstance(s, FUNCTIONS) and not (s.name.startswith("__") and s.name.endswith("__"))]


def is_main_guard(statement: ast.stmt) -> bool:
    """`if __name__ == "__main__":` is never true of an imported module."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"
