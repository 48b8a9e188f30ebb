"""Which modules of a package some others may ever import, found from their source: nothing is imported to know it."""

from collections.abc import Iterable
from pathlib import Path

from pgolf.config.own import Module, imported_names
from pgolf.errors import UserError


def closure(roots: Iterable[str], package: Path) -> list[Module]:
    """The modules of `package` that importing `roots` may ever import, by name. A root may be a module or a name in one."""
    found: dict[str, Module] = {}
    waiting = sorted(roots)
    for root in waiting:
        if not _within(root, package):
            raise UserError(f"{root}: not a module of {package.name}, nor a name in one")
    while waiting:
        for module in _within(waiting.pop(), package):
            if module.name not in found:
                found[module.name] = module
                waiting += imports(module)
    return [found[name] for name in sorted(found)]


def _within(dotted: str, package: Path) -> list[Module]:
    """The modules that importing `dotted` executes: each parent package, then the module; a trailing name is dropped."""
    first, *rest = dotted.split(".")
    if first != package.name:
        return []
    found, folder = [Module(first, package / "__init__.py")], package
    for i, part in enumerate(rest, 1):
        folder, name = folder / part, ".".join([first, *rest[:i]])
        if (folder / "__init__.py").exists():
            found.append(Module(name, folder / "__init__.py"))
        elif folder.with_suffix(".py").exists():
            return [*found, Module(name, folder.with_suffix(".py"))]
        else:
            break
    return found


def imports(module: Module) -> list[str]:
    """Dotted names that `module` imports anywhere at run time; `from a import b` gives a.b, which may be a name in a."""
    return sorted(imported_names(module))
