"""Several modules as one program: no imports between them, every name at the top its own, foreign imports once, first.

Statements keep the order in which importing the modules would run them; modules that are imported inside functions come
last. A string that stands alone, `'package.module'`, says where the statements after it come from.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pgolf.errors import UserError
from pgolf.export.scopes import (
    MISSING,
    SCOPES,
    Import,
    Renamer,
    binds,
    body_of,
    imported,
    own_builtins,
    own_nodes,
    scope_names,
)

GIVEN = "RECIPE"  # nothing of ours: what runs the program binds it


@dataclass(frozen=True)
class Merged:
    """The program, and what every definition (dotted) is called in it."""

    source: str
    names: dict[str, str]


def merge(modules: Mapping[str, str], fixed: Iterable[str] = ()) -> Merged:
    """`modules` (dotted name -> stripped source) as one; definitions that are `fixed` (dotted) keep their last name.

    merge({"m": "from o import f\\ndef main(): return f()", "o": "import os\\ndef f(): return os.sep"}).source
    == "import os\\n'o'\\n\\ndef f():\\n    return os.sep\\n'm'\\n\\ndef main():\\n    return f()"
    """
    parts = {name: Part(name, ast.parse(source)) for name, source in modules.items()}
    names = Names(parts, set(fixed))
    body = [statement for name in execution(parts) for statement in Linker(parts[name], names).linked()]
    return Merged(ast.unparse(ast.Module([*names.foreign_imports(), *body], [])), names.final)


class Part:
    """One module: what it defines at its top, and what its imports there stand for."""

    def __init__(self, name: str, tree: ast.Module):
        self.name, self.tree = name, tree
        self.defined: dict[str, None] = {}  # an ordered set
        self.imports: dict[str, str] = {}
        for statement in tree.body:
            if isinstance(statement, Import):
                self.imports |= dict(imported(statement, name))
            else:
                self.defined |= dict.fromkeys(name for node in own_nodes([statement]) for name in binds(node))


def execution(parts: Mapping[str, Part]) -> list[str]:
    """The modules in the order in which importing them all would finish them: packages begin before what is in them."""
    begun: set[str] = set()
    finished: list[str] = []

    def enter(name: str) -> None:
        if name.rpartition(".")[0] in parts:
            enter(name.rpartition(".")[0])
        if name in parts and name not in begun:
            begun.add(name)
            for dotted in parts[name].imports.values():
                enter(dotted.rpartition(".")[0])
                enter(dotted)
            finished.append(name)

    for name in sorted(parts):
        enter(name)
    return finished


class Names:
    """What everything at the top of the one program is called: unlike anything inside a function or class, or built in."""

    def __init__(self, parts: Mapping[str, Part], fixed: set[str]):
        self.parts = parts
        self.foreign = {what for part in parts.values() for what in part.imports.values() if not self.ours(what)}
        self.taken = {name for part in parts.values() for name in self._inside(part)} | {GIVEN, *own_builtins()}
        self.final: dict[str, str] = {}  # dotted definition, or import from elsewhere -> name
        for dotted in sorted(fixed):
            self._fix(dotted)
        for part in parts.values():
            for name in part.defined:
                self._name(f"{part.name}.{name}", name)
            for name, dotted in part.imports.items():
                if not self.ours(dotted):
                    self._name(dotted, name)

    def _inside(self, part: Part) -> Iterator[str]:
        """Names that functions and classes keep for themselves."""
        for node in ast.walk(part.tree):
            if isinstance(node, SCOPES):
                yield from set(scope_names(node)) - self.shared(node, part.name).keys()

    def shared(self, scope: ast.AST, module: str) -> dict[str, str]:
        """Imports inside a scope of what is at some module's top: local name -> dotted."""
        statements = [node for node in own_nodes(body_of(scope)) if isinstance(node, Import)]
        found = {name: dotted for s in statements for name, dotted in imported(s, module)}
        return {name: dotted for name, dotted in found.items() if self.at_top(dotted)}

    def at_top(self, dotted: str) -> bool:
        """Whether a dotted name is bound at the top of the merged module."""
        return self.ours(dotted) or dotted in self.foreign

    def _fix(self, dotted: str) -> None:
        found, name = self.resolved(dotted), dotted.rpartition(".")[2]
        if found in self.final:
            return
        if name in self.taken:
            raise UserError(f"{dotted}: a component needs a name that means nothing else in pgolf; rename the class")
        self.taken.add(name)
        self.final[found] = name

    def _name(self, dotted: str, wanted: str) -> None:
        if dotted not in self.final:
            while wanted in self.taken:
                wanted += "_"
            self.taken.add(wanted)
            self.final[dotted] = wanted

    def ours(self, dotted: str) -> bool:
        """Whether a dotted name is of a merged module."""
        return dotted in self.parts or dotted.rpartition(".")[0] in self.parts

    def resolved(self, dotted: str) -> str:
        """Past all re-exports: a module of ours, a definition in one, or the name of something from elsewhere."""
        module, _, name = dotted.rpartition(".")
        if dotted in self.parts or module not in self.parts or name in self.parts[module].defined:
            return dotted
        if name not in self.parts[module].imports:
            raise UserError(f"{dotted}: is imported, but there is no {name} in the source of {module}")
        return self.resolved(self.parts[module].imports[name])

    def foreign_imports(self) -> list[ast.stmt]:
        """Import statements for the names of other packages."""
        return [self._import(dotted) for dotted in sorted(self.final) if not self.ours(dotted)]

    def _import(self, dotted: str) -> ast.stmt:
        """The statement that made this name in the first module that has it."""
        for part in self.parts.values():
            for statement in part.tree.body:
                if isinstance(statement, Import):
                    for alias, (_, what) in zip(statement.names, imported(statement, part.name), strict=True):
                        if what == dotted:
                            return self._importing(statement, alias, self.final[dotted])
        raise AssertionError(dotted)

    def _importing(self, statement: Import, alias: ast.alias, name: str) -> ast.stmt:
        again = ast.alias(alias.name, None if name == alias.name else name)
        return (
            ast.Import([again]) if isinstance(statement, ast.Import) else ast.ImportFrom(statement.module, [again], 0)
        )


class Linker(Renamer, ast.NodeTransformer):
    """One module's statements with every name that means something at the top of a module under its final name."""

    def __init__(self, part: Part, names: Names):
        super().__init__()
        self.part, self.names = part, names

    def linked(self) -> list[ast.stmt]:
        """The module's statements, its imports replaced by the merged names."""
        body = [s for s in self.part.tree.body if not isinstance(s, Import)]
        return [ast.Expr(ast.Constant(self.part.name)), *map(self.visit, body)]

    def meanings(self, scope: ast.AST) -> dict[str, str | None]:
        """Names of a scope's own mean nothing outside of it, but for imports of what is at a top."""
        return dict.fromkeys(scope_names(scope)) | self.names.shared(scope, self.part.name)

    def meaning(self, name: str) -> str | None:
        """The dotted name that `name` stands for here, or None where it is local, or built in."""
        dotted = self.found(name)
        if dotted is MISSING:
            dotted = f"{self.part.name}.{name}" if name in self.part.defined else self.part.imports.get(name)
        return self.names.resolved(dotted) if dotted else None

    def renamed(self, name: str) -> str:
        meaning = self.meaning(name)
        if meaning in self.names.parts:
            raise UserError(f"{self.part.name}: the module {name} is used as a value, and modules do not ship as such")
        return self.names.final[meaning] if meaning else name

    def visit_Name(self, node: ast.Name) -> ast.Name:
        scope, own = self.scopes[-1] if self.scopes else (None, {})
        again = isinstance(scope, ast.ClassDef) and isinstance(node.ctx, ast.Load) and node.id in own
        if again and node.id in {*self.part.defined, *self.part.imports}:
            raise UserError(
                f"{self.part.name}: {node.id} is read in a class that sets it and is the module's too; rename one"
            )
        return super().visit_Name(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        module = self.meaning(node.value.id) if isinstance(node.value, ast.Name) else None
        if module in self.names.parts:
            return ast.Name(self.names.final[self.names.resolved(f"{module}.{node.attr}")], node.ctx)
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> ast.stmt:
        return self._without_top(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        return self._without_top(node)

    def _without_top(self, node: Import) -> ast.stmt:
        """An import inside a function stays only for what no module imports at its top."""
        found = zip(node.names, imported(node, self.part.name), strict=True)
        node.names = [alias for alias, (_, dotted) in found if not self.names.at_top(dotted)]
        return node if node.names else ast.Pass()
