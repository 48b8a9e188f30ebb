"""Room and time: cores, memory, shared memory, disks, and the limits of a Slurm job."""

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.config.disk import written
from pgolf.data import PublishedText
from pgolf.doctor.finding import Finding
from pgolf.machine import Machine
from pgolf.machine.hardware import affinity, memory_limit, quota
from pgolf.machine.hardware import cores as usable_cores
from pgolf.machine.needs import KEPT_FREE, free_bytes
from pgolf.machine.programs import printed_by

if TYPE_CHECKING:
    from pgolf.config.compose import Job
    from pgolf.recipe import Recipe

GIB = 2**30
MEMORY = 2 * GIB  # a laptop run uses about 1.5
BUILT_BYTES = (
    GIB  # the corpus of the standard library takes a tenth of it; how much text of one's own does is not known
)
SHARD_BYTES = 200_001_024  # of a published shard: 100 million tokens of two bytes, and a header
NCCL_SHM = GIB  # what NCCL's authors advise; containers come with 64 MiB
START_SECONDS = 120  # of a run before its first clock and between the two: imports, warm-up, graphs


def cores(machine: Machine) -> Finding:
    """Cores by affinity and quota, what the ranks want of them, and how busy they are."""
    usable, limit, busy = usable_cores(), quota(), os.getloadavg()[0]
    wanted = machine.ranks * machine.threads
    limited = f", quota {limit:g}" if math.isfinite(limit) else ""
    found = f"{usable} usable (affinity {affinity()} of {os.cpu_count()}{limited}), {wanted} asked for, load {busy:.1f}"
    if wanted > usable and not machine.on_gpu:
        return Finding(
            "cores",
            found,
            True,
            f"more threads than cores make steps slower: machine.threads={max(1, usable // machine.ranks)}",
        )
    do = "other programs are running: clocks will be short of steps" if busy > usable / 2 else ""
    return Finding("cores", found, True, do)


def memory_needed(recipe: "Recipe") -> int:
    """Bytes of the host: a base, and on a CPU what ranks hold of weights, gradients, moments, averages and activations."""
    from pgolf.config.memory import memory as held

    return MEMORY + (0 if recipe.machine.on_gpu else recipe.machine.ranks * held(recipe).peak(recipe.micro_sequences))


def memory(needed: int) -> Finding:
    """Physical memory, or what a control group leaves of it, beside what the recipe holds by its shapes."""
    physical, limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), memory_limit()
    size = min(physical, limit)
    by = " by its control group" if limit < physical else ""
    ok = size >= needed
    do = "" if ok else "take another machine, raise the limit, or lower machine.micro_batch_tokens"
    return Finding("memory", f"{size / GIB:.1f} GiB{by}, about {needed / GIB:.1f} needed", ok, do)


def shared_memory(machine: Machine, place: Path = Path("/dev/shm")) -> Finding:
    """Where NCCL and semaphores lie. Systems without it (macOS) have them elsewhere."""
    if not place.exists():
        return Finding("/dev/shm", f"no {place}, and none is needed", not (machine.on_gpu and machine.ranks > 1))
    free, needed = free_bytes(place), NCCL_SHM if machine.on_gpu and machine.ranks > 1 else 1
    ok = free >= needed and os.access(place, os.W_OK)
    do = "" if ok else "docker run --shm-size=1g, or --ipc=host; a mounted one must be writable"
    return Finding("/dev/shm", f"{free / GIB:.2f} GiB free at {place}", ok, do)


def disks(job: "Job") -> list[Finding]:
    """Where corpora are kept, with what is still to come there, and where runs are written: here."""
    data, here = job.recipe.data, written(job)
    missing = data.tokens_present() is None
    published = (data.train_shards + data.val_shards) * SHARD_BYTES if isinstance(data, PublishedText) else BUILT_BYTES
    coming = {"data": published} if missing else {}
    name = data.local if isinstance(data, PublishedText) else data.cache_folder
    return [
        disk("disk, data", name, coming, "PGOLF_CACHE=DIR, data.cache=DIR or data.folder=DIR name another place"),
        disk(
            "disk, runs",
            Path.cwd(),
            here | {"logs": KEPT_FREE},
            "hydra.run.dir=DIR or hydra.sweep.dir=DIR name another place",
        ),
    ]


def disk(what: str, folder: Path, needed: Mapping[str, int], do: str) -> Finding:
    """Free bytes of the place of a folder, beside what will be written there."""
    place, free = next(path for path in (folder, *folder.parents) if path.exists()), free_bytes(folder)
    ok = free >= sum(needed.values()) and os.access(place, os.W_OK)
    listed = ", ".join(f"{name} {size / GIB:.2f}" for name, size in needed.items()) or "nothing more"
    writable = "" if os.access(place, os.W_OK) else ", which cannot be written to"
    return Finding(what, f"{free / GIB:.1f} GiB free at {place}{writable}; needed: {listed}", ok, "" if ok else do)


def slurm(recipe: "Recipe", needed: int, environment: Mapping[str, str] = os.environ) -> Finding:
    """Inside a Slurm job: the time that is left against both clocks, its memory, its GPUs and cores against the words."""
    if not (job := environment.get("SLURM_JOB_ID")):
        return Finding("Slurm", "not inside a job")
    limits, machine, wrong = recipe.limits, recipe.machine, []
    clocks = limits.train_seconds + limits.eval_seconds + START_SECONDS
    left = seconds_left(job, environment)
    if left is not None and left < clocks:
        wrong.append(
            f"--time={math.ceil(clocks / 60)} or more: the clocks and {START_SECONDS} s to start take {clocks:,.0f} s"
        )
    granted = memory_granted(environment)
    if granted is not None and granted < needed:
        wrong.append(f"--mem={math.ceil(needed / 2**20)}M or more")
    given = environment.get("SLURM_GPUS_ON_NODE", "")
    if machine.on_gpu and given.isdecimal() and int(given) < machine.ranks:
        wrong.append(f"--gpus-per-node={machine.ranks}")
    stated = [
        f"{left:,.0f} s left" if left is not None else "no limit of time is told",
        *([f"{granted / GIB:.1f} GiB"] if granted is not None else []),
        *([f"{given} GPU(s)"] if given else []),
    ]
    return Finding("Slurm", f"job {job}: {', '.join(stated)}", not wrong, f"sbatch {', '.join(wrong)}" if wrong else "")


def seconds_left(job: str, environment: Mapping[str, str]) -> float | None:
    """Until Slurm ends the job: by its environment, or, where that does not say, by squeue; None where neither does."""
    end = environment.get("SLURM_JOB_END_TIME", "")
    if end.isdecimal():
        return int(end) - time.time()
    return duration(next(iter(printed_by("squeue", "-h", "-j", job, "-o", "%L")), ""))


def duration(text: str) -> float | None:
    """Seconds of Slurm's [days-][[hours:]minutes:]seconds, None of what is none (UNLIMITED).

    >>> duration("1-02:00:30"), duration("10:00"), duration("UNLIMITED")
    (93630.0, 600.0, None)
    """
    days, _, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in (*parts, days or "0")):
        return None
    return float(int(days or 0) * 86400 + sum(int(part) * 60**i for i, part in enumerate(reversed(parts))))


def memory_granted(environment: Mapping[str, str]) -> int | None:
    """Bytes on this node, of what Slurm states in MiB: for the node, or for each core."""
    node, core = environment.get("SLURM_MEM_PER_NODE", ""), environment.get("SLURM_MEM_PER_CPU", "")
    count = environment.get("SLURM_CPUS_ON_NODE", "")
    if node.isdecimal() and int(node):
        return int(node) << 20
    return (int(core) * int(count)) << 20 if core.isdecimal() and count.isdecimal() else None
