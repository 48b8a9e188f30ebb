"""A virtual environment in which only some distributions, and what those need, can be imported."""

import re
import subprocess
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path


def bare_environment(folder: Path, names: Iterable[str]) -> Path:
    """Make it in `folder`, with links instead of copies. Returns its Python."""
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for one in needed(names):
        for top in {file.parts[0] for file in one.files or () if file.parts[0] not in ("..", "__pycache__")}:
            link = packages / top
            if not link.exists():
                link.symlink_to(Path(str(one.locate_file(top))).resolve())
    return folder / "bin" / "python"


def needed(names: Iterable[str]) -> list[Distribution]:
    """Installed distributions by these names, and all that they need; what is optional or not for here is not installed."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            try:
                found[name] = distribution(name)
            except PackageNotFoundError:
                continue
            wanted = [line for line in found[name].requires or () if "extra ==" not in line]
            waiting += [re.match(r"[\w.-]+", line).group() for line in wanted]
    return list(found.values())


def can_import(python: Path, names: Iterable[str]) -> set[str]:
    """Which of `names` that Python finds."""
    code = f"from importlib.util import find_spec\nprint(*(n for n in {list(names)} if find_spec(n)))"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())
