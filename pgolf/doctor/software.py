"""Python, torch, what compiles for it, and the logger's client."""

import os
import platform
import re
import sys

from pgolf.doctor.finding import Finding
from pgolf.errors import UserError
from pgolf.logger import OURS, Logger, Wandb, WandbAndTensorBoard
from pgolf.logger.key import has_key
from pgolf.machine import Machine
from pgolf.machine.hardware import gpus_present, seen_by_torch, why_fewer
from pgolf.machine.needs import compiler_missing, compilers
from pgolf.machine.programs import printed_by

PYTHONS = ((3, 11), (3, 13))


def python() -> Finding:
    """3.11 to 3.13: Hydra 1.3 does not run on later ones."""
    low, high = PYTHONS
    ok = low <= sys.version_info[:2] <= high
    do = "" if ok else f"make a virtual environment with Python {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    return Finding("python", f"{platform.python_version()} at {sys.executable}", ok, do)


def torch_itself() -> Finding:
    """The version of torch, and its CUDA beside the newest that the driver knows: the same major version or an older one runs."""
    import torch

    built = torch.version.cuda
    driver = driver_cuda()
    found = f"{torch.__version__}, CUDA {built or 'not built in'}{f', driver for CUDA {driver}' if driver else ''}"
    if built and driver and int(built.split(".")[0]) > int(driver.split(".")[0]):
        do = f"install a torch for CUDA {driver.split('.')[0]}, or a driver for CUDA {built}"
        return Finding("torch", found, False, do)
    return Finding("torch", found)


def driver_cuda() -> str:
    """The newest CUDA that NVIDIA's driver runs, as nvidia-smi tells it; nothing where it is not there."""
    versions = [
        found[1] for line in printed_by("nvidia-smi") if (found := re.search(r"CUDA Version: (\d+\.\d+)", line))
    ]
    return versions[0] if versions else ""


def gpus(machine: Machine) -> Finding:
    """Those the driver shows, those torch can use, and those the words ask for."""
    import torch

    present, seen = gpus_present(), seen_by_torch()
    names = ", ".join(sorted({torch.cuda.get_device_name(i) for i in range(seen)})) or "none"
    if why := why_fewer(present, seen):
        return Finding("GPUs", f"{present} in the machine, {seen} usable by torch", False, why)
    if seen > present:
        do = f"machine.device=cuda machine.ranks={seen} names them, which machine.device=auto does not find"
        return Finding("GPUs", f"{present} shown by the driver, {seen} usable by torch ({names})", machine.on_gpu, do)
    try:
        machine.require_gpus(seen)
    except UserError as wrong:
        do = f"machine.ranks={seen}" if seen else "scale=laptop with machine.device=cpu runs any system without"
        return Finding("GPUs", str(wrong), False, do)
    on = f"; {machine.ranks} rank(s) on the {'GPU' if machine.on_gpu else 'CPU'}"
    return Finding("GPUs", f"{seen} ({names}){on}" if seen else f"none{on}")


def attention() -> Finding:
    """Which kernel scaled_dot_product_attention has for a causal bf16 call like ours."""
    import torch
    from torch.nn.attention import SDPBackend

    device = "cuda" if torch.cuda.is_available() else "cpu"
    backends = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
    works = [backend.name.lower() for backend in backends if _attends(backend, device)]
    fast = device == "cpu" or works[:1] != ["math"]
    do = "" if fast else "a GPU of compute capability 8 or more has the fused kernels; here attention will be slow"
    return Finding("attention", f"on {device}: {', '.join(works) or 'none'}", bool(works) and fast, do)


def _attends(backend, device: str) -> bool:
    import warnings

    import torch
    from torch.nn.attention import sdpa_kernel

    q = torch.zeros(1, 2, 64, 64, dtype=torch.bfloat16, device=device)
    try:
        with warnings.catch_warnings(), sdpa_kernel(backend):
            warnings.simplefilter("ignore")  # they say why a kernel is not for this call
            torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    except RuntimeError:
        return False
    return True


def compiler(machine: Machine) -> Finding:
    """What torch.compile calls, where `machine.compile` is on."""
    lack = compiler_missing(machine.on_gpu)
    if not machine.compile:
        return Finding("compiler", f"not needed: machine.compile=false{'' if lack else ' (one is there)'}")
    if lack:
        do = f"install it ({'gcc' if machine.on_gpu else 'g++'} by most packagers), or machine.compile=false"
        return Finding("compiler", f"machine.compile=true needs {lack}", False, do)
    command = compilers(machine.on_gpu)[0]
    return Finding("compiler", f"{command}: {printed_by(*command.split(), '--version')[0]}")


def wandb(logger: Logger) -> Finding:
    """The client, what the words ask of it, its variables, and whether there is a key."""
    try:
        import wandb as client
    except Exception as wrong:  # an import can fail in any way where packages do not fit each other
        return Finding("W&B", f"cannot be imported: {wrong}", False, "pip install 'wandb>=0.19', or keep logger=jsonl")
    spec = logger.wandb if isinstance(logger, WandbAndTensorBoard) else logger if isinstance(logger, Wandb) else None
    asked = f"{spec.mode}, project {spec.project}, entity {spec.entity or 'of the key'}" if spec else "not asked for"
    key = has_key()
    found = f"{client.__version__}, {asked}; {'a key is there' if key else 'no key'}"
    if spec and spec.mode == "online" and not key:
        return Finding("W&B", found, False, "wandb login, or WANDB_API_KEY, or logger.mode=offline")
    if given := [name for name in OURS if os.environ.get(name)]:
        return Finding("W&B", found, True, f"logger=wandb will not start under {', '.join(given)}: unset what it names")
    return Finding("W&B", found)
