"""What this machine has for a run: cores, as affinity and quota leave them, and GPUs. The one place that asks.

Nothing here imports torch or touches a driver's state: a plan is made in an instant, on any machine. `seen_by_torch` alone
asks torch, which has the last word on GPUs once it is imported.
"""

import ctypes
import math
import os
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

SYSTEM = Path("/")
GPU_BUILDS = ("cuda", "hip")  # what torch may be built for, by the names in its version.py
HIDING = {  # variables that say which GPUs a process may use
    "cuda": ("CUDA_VISIBLE_DEVICES",),
    "hip": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    "": ("CUDA_VISIBLE_DEVICES",),
}


def affinity() -> int:
    """Cores that this process may run on; all of them where the system has no such notion (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(root: Path = SYSTEM) -> float:
    """Cores' worth of time that the control groups of this process allow it; infinite where they set no limit.

    A group holds for all below it, so the least of them counts. In a container the path that the kernel tells may be that of
    the host, and the limit lies at the top of what is mounted: both are read.
    """
    found = [math.inf]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        mounts = [""] if not controllers else [controllers, *controllers.split(",")]
        if not controllers or "cpu" in controllers.split(","):
            found += [_allowed(root / "sys/fs/cgroup" / mount / above) for mount in mounts for above in _upwards(path)]
    return min(found)


def _upwards(path: str) -> list[str]:
    """_upwards("/a/b") == ["a/b", "a", ""]"""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return ["/".join(parts[:n]) for n in range(len(parts), -1, -1)]


def _allowed(group: Path) -> float:
    """Of one group: version 2 states "50000 100000" or "max 100000", version 1 has a file for each of the two."""
    time, _, period = _text(group / "cpu.max").strip().partition(" ")
    if not time:
        time, period = (_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(time) / int(period) if time.isdecimal() and period.isdecimal() and int(period) else math.inf


def memory_limit(root: Path = SYSTEM) -> float:
    """Bytes that the control groups of this process allow it; infinite where they set no limit."""
    found = [math.inf]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            groups = [root / "sys/fs/cgroup" / controllers / above for above in _upwards(path)]
            stated = [_text(group / name) for group in groups for name in ("memory.max", "memory.limit_in_bytes")]
            found += [float(size) for size in map(str.strip, stated) if size.isdecimal()]
    return min(found)


def cores(root: Path = SYSTEM) -> int:
    """Threads that can run at once here, one at the least."""
    return max(1, int(min(affinity(), quota(root))))


def gpus_present(environment: Mapping[str, str] = os.environ) -> int:
    """GPUs that this process may use, as the driver's files and the environment tell; `seen_by_torch` is what torch says."""
    build = torch_build()
    count = amd_gpus() if build == "hip" else nvidia_gpus()
    for name in HIDING[build]:
        count = named(environment[name], count) if name in environment else count
    return count


def named(visible: str, present: int) -> int:
    """How many of `present` GPUs a variable like CUDA_VISIBLE_DEVICES leaves: the driver reads up to the first that is none.

    >>> named("0,2,5", 8), named("0,2,5", 3), named("0,-1,1", 8), named("", 8), named("GPU-8f6c,MIG-12", 8), named("0,0", 8)
    (3, 2, 1, 0, 2, 0)
    """
    found: list[str] = []
    for word in map(str.strip, visible.split(",")):
        if not (re.match(r"(GPU|MIG)-\w", word) or (word.isdecimal() and int(word) < present)):
            break
        if word in found:
            return 0  # named twice, which the driver refuses
        found.append(word)
    return len(found) if present else 0


@cache
def torch_build() -> str:
    """What the torch that is installed can compute on besides CPUs: "cuda", "hip" (ROCm), or nothing. It is not imported."""
    found = find_spec("torch")
    text = _text(Path(found.submodule_search_locations[0], "version.py")) if found else ""
    return next((kind for kind in GPU_BUILDS if re.search(rf"^{kind}\b.*=\s*['\"]", text, re.MULTILINE)), "")


@cache
def nvidia_gpus(root: Path = SYSTEM) -> int:
    """Those of NVIDIA's driver: by its files, or, where it has none (WSL2), by its library, which opens nothing on a GPU."""
    files = [path for path in (root / "dev").glob("nvidia*") if path.name[6:].isdecimal()]
    return len(files) or _counted_by_nvml()


def _counted_by_nvml() -> int:
    try:
        library, count = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_uint(0)
        if library.nvmlInit_v2() == 0:
            library.nvmlDeviceGetCount_v2(ctypes.byref(count))
            library.nvmlShutdown()
    except (OSError, AttributeError):
        return 0
    return count.value


@cache
def amd_gpus(root: Path = SYSTEM) -> int:
    """Those of ROCm's driver: its nodes with vector units; a node without is a CPU."""
    nodes = (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")
    return sum(re.search(r"^simd_count [1-9]", _text(node), re.MULTILINE) is not None for node in nodes)


def seen_by_torch() -> int:
    """GPUs that torch can use. It is imported, and asks the driver; no memory of a GPU is taken."""
    if not torch_build():
        return 0
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a driver that is too old is told by a warning, and in `why_fewer` by us
        return torch.cuda.device_count() if torch.cuda.is_available() else 0


def why_fewer(present: int, seen: int) -> str:
    """What keeps torch from GPUs that are present, and what to do; nothing where it sees them all."""
    if seen >= present:
        return ""
    if not torch_build():
        return "torch is built for the CPU alone: install the build for the driver's CUDA (nvidia-smi shows it)"
    return (
        f"torch can use {seen} of {present}: its {torch_build().upper()} is newer than the driver, the driver is not loaded, or"
        f" {' or '.join(HIDING[torch_build()])} names what is not there (nvidia-smi or rocm-smi shows both)"
    )


def _text(path: Path) -> str:
    """What a file of the system says; nothing where it is not there or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
