"""Whether a file of the working folder has the name of a standard module: Python would import it in that one's place."""

import os
import sys

UNUSED = {"antigravity", "idlelib", "test", "this", "turtle", "turtledemo"}  # standard modules that nothing imports


def shadows(folder: str) -> list[str]:
    """Files in `folder` that hide standard modules from a program that is started there with `python -m`."""
    names = sorted(sys.stdlib_module_names - UNUSED - set(sys.builtin_module_names))
    files = (os.path.join(folder, part) for name in names for part in (f"{name}.py", os.path.join(name, "__init__.py")))
    return [file for file in files if os.path.isfile(file)]


def require_no_shadows() -> None:
    """End the program, with one message and exit code 2, before anything imports such a file."""
    if sys.path and sys.path[0] in ("", os.getcwd()) and (found := shadows(os.getcwd())):
        what = "has the name of a standard module, which it would replace; give it another name"
        print(f"pgolf: {found[0]} {what}", file=sys.stderr)
        sys.exit(2)
