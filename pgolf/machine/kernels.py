"""The part machine.kernels: whether the model runs in plain torch or with fused kernels, chosen once the model is built.

The fused ones are `pgolf/model/triton_kernels.py` and torch's attention over variable lengths, by FlashAttention 3 where that
is installed. An exported file carries the text of the former in its frozen recipe, in `source`.
"""

import linecache
import os
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from types import ModuleType
from typing import TYPE_CHECKING

from pgolf.errors import ConfigError
from pgolf.files.receipts import Receipt

if TYPE_CHECKING:
    import torch

    from pgolf.model.transformer import Transformer

FILE = "triton_kernels.py"
OLDEST = (8, 0)  # compute capability: bf16, and what FlashAttention needs


@dataclass(frozen=True, kw_only=True)
class Kernels(ABC):
    """Who computes the parts of a model for which there are kernels."""

    @abstractmethod
    def install(self, model: "Transformer") -> list[Receipt]:
        """Put them into a model that has just been built; the receipt says which run. Raises ConfigError."""


@dataclass(frozen=True, kw_only=True)
class PlainKernels(Kernels):
    """Torch alone, the same everywhere."""

    def install(self, model: "Transformer") -> list[Receipt]:
        return []


@dataclass(frozen=True, kw_only=True)
class FusedKernels(Kernels):
    """The fused ones, or an error that says what is missing. `source` is their text; null: that of this package."""

    source: tuple[str, ...] | None

    def install(self, model: "Transformer") -> list[Receipt]:
        device = next(model.parameters()).device
        if lack := missing(device):
            allowed = f"needs {lack}; machine.kernels=auto takes what is there, plain is torch alone"
            raise ConfigError("machine.kernels", "fused", allowed)
        return [fuse(model, self.source, device)]


@dataclass(frozen=True, kw_only=True)
class AutoKernels(Kernels):
    """The fused ones where they can run, else plain torch; the receipt says what is missing."""

    source: tuple[str, ...] | None

    def install(self, model: "Transformer") -> list[Receipt]:
        device = next(model.parameters()).device
        lack = missing(device)
        return [
            Receipt("machine.kernels", f"plain: needs {lack}", 0, True) if lack else fuse(model, self.source, device)
        ]


def missing(device: "torch.device") -> str:
    """What the fused kernels lack on this device, and what to do; nothing if they can run."""
    import torch

    if device.type != "cuda":
        built = torch.version.cuda is not None
        return "a CUDA device" if built else "a torch that is built with CUDA (this one is for the CPU alone)"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        return f"compute capability 8.0 or higher (this GPU has {capability[0]}.{capability[1]})"
    if not find_spec("triton"):
        return "Triton: pip install 'pgolf[triton]'"
    compiler = os.environ.get("CC") or which("cc") or which("gcc") or which("clang")
    return "" if compiler else "a C compiler, with which Triton builds what starts a kernel (cc, gcc or clang)"


def fuse(model: "Transformer", source: tuple[str, ...] | None, device: "torch.device") -> Receipt:
    """Put the kernels in place of their plain forms."""
    from pgolf.model.fused import replace_parts

    flash = use_flash_attention_3() if device.type == "cuda" else "torch's own"
    parts = replace_parts(model, loaded(source))
    return Receipt("machine.kernels", f"fused: {', '.join(parts)}; attention by {flash}", len(parts), bool(parts))


def use_flash_attention_3() -> str:
    """Make it what torch's attention calls, if it is installed; the name of what is called."""
    from torch.nn.attention import activate_flash_attention_impl

    if not find_spec("flash_attn_interface"):
        return "FlashAttention 2"
    activate_flash_attention_impl("FA3")
    return "FlashAttention 3"


def path() -> Path:
    """Where this package's kernels are."""
    return Path(__file__).parents[1] / "model" / FILE


def text() -> tuple[str, ...]:
    """Their lines, for an exported file."""
    return tuple(path().read_text(encoding="utf-8").splitlines())


def loaded(source: tuple[str, ...] | None) -> ModuleType:
    """The module of the kernels, once per process. Triton reads a kernel's source by `inspect`, which looks into `linecache`."""
    name = "pgolf_triton_kernels"
    if name not in sys.modules:
        whole = "\n".join(text() if source is None else source) + "\n"
        linecache.cache[FILE] = len(whole), None, whole.splitlines(True), FILE
        module = sys.modules[name] = ModuleType(name)
        exec(compile(whole, FILE, "exec"), vars(module))
    return sys.modules[name]
