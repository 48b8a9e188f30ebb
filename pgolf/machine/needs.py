"""What a machine must have for the words of a run, looked for before anything is made; each that is not met is refused.

`python -m pgolf.doctor` reads the same answers. Compilers are those that torch.compile would call: Inductor's C++ on a CPU,
Triton's C on a GPU, by the variables that name them.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from pgolf.errors import ConfigError, RefusedError
from pgolf.machine import Machine
from pgolf.machine.hardware import gpus_present, seen_by_torch, why_fewer
from pgolf.machine.programs import printed_by

WITHOUT = "; machine.device=cpu does without, and scale=laptop makes any system small enough for that"
KEPT_FREE = 64 << 20  # bytes, for logs, events, reports and what else a run writes


def require(machine: Machine) -> None:
    """ConfigError for ranks on GPUs that are not here, and for `machine.compile` without what compiles. Torch is not asked."""
    machine.require_gpus(gpus_present(), WITHOUT)
    if machine.compile and (lack := compiler_missing(machine.on_gpu)):
        raise ConfigError("machine.compile", True, f"needs {lack}; machine.compile=false does without")


def require_seen(machine: Machine) -> None:
    """RefusedError for ranks on GPUs that the driver shows and torch, which is imported for it, cannot use."""
    if machine.on_gpu:
        present, seen = gpus_present(), seen_by_torch()
        fewer = f", of {present}: {why_fewer(present, seen)}" if seen < present else ""
        try:
            machine.require_gpus(seen, f" that torch can use{fewer}{WITHOUT}")
        except ConfigError as wrong:
            raise RefusedError(str(wrong)) from None


def compiler_missing(on_gpu: bool, environment: Mapping[str, str] = os.environ) -> str:
    """What torch.compile lacks here, in words; nothing if it can compile."""
    if on_gpu and not find_spec("triton"):
        return "Triton: pip install 'pgolf[triton]'"
    tried = ", ".join(compiler_names(on_gpu, environment))
    if not compilers(on_gpu, environment):
        language, variable = ("C", "CC") if on_gpu else ("C++", "CXX")
        return f"a {language} compiler, and none answers here (tried: {tried}; {variable} names another)"
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return "" if headers.exists() else f"the headers of Python (python3-dev by most packagers; {headers} is not there)"


def compiler_names(on_gpu: bool, environment: Mapping[str, str]) -> list[str]:
    """The commands that are looked for: the one that a variable names, or the usual ones."""
    if given := environment.get("CC" if on_gpu else "CXX"):
        return [given]
    return ["gcc", "cc", "clang"] if on_gpu else ["clang++" if sys.platform == "darwin" else "g++"]


def compilers(on_gpu: bool, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Those that answer."""
    return [name for name in compiler_names(on_gpu, environment) if compiles(name)]


def compiles(command: str) -> bool:
    """Whether a compiler is there and tells its version."""
    words = shlex.split(command)
    return bool(words and shutil.which(words[0]) and printed_by(*words, "--version"))


def require_disk(folder: Path, needed: Mapping[str, int]) -> None:
    """RefusedError if fewer bytes than are `needed`, by what takes them, are free where `folder` lies."""
    if (free := free_bytes(folder)) < sum(needed.values()) + KEPT_FREE:
        what = ", ".join(f"{name} {size:,}" for name, size in needed.items())
        raise RefusedError(
            f"{folder}: {free:,} bytes are free there, and a run of these words writes up to {what} and logs {KEPT_FREE:,};"
            " hydra.run.dir=DIR, hydra.sweep.dir=DIR of a sweep, puts it elsewhere"
        )


def free_bytes(folder: Path) -> int:
    """Bytes that a person without privileges may still write where a folder lies, or is to lie."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
