"""Run in a process of its own: `triton_child.py interpret FILE` or `triton_child.py compile FILE`; prints one JSON line.

FILE is the module of the kernels, as it lies in the package or as an exported file carries it.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def module(file: str):
    spec = spec_from_file_location("kernels_in_a_test", file)
    made = module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def interpret(kernels) -> dict[str, float]:
    """How far each kernel is from its plain form, by dtype; gradients too."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        word = str(dtype).removeprefix("torch.")
        for rows, V in ((3, 1024), (2, 5000)):
            scores = (torch.randn(rows, V) * 40).to(dtype).requires_grad_()
            targets, weight = torch.randint(V, (rows,)), torch.rand(rows)
            ours = kernels.capped_nll(scores, targets, 30.0)
            (g,) = torch.autograd.grad((ours * weight).sum(), scores)
            plain = F.cross_entropy(30.0 * torch.tanh(scores.float() / 30.0), targets, reduction="none")
            (h,) = torch.autograd.grad((plain * weight).sum(), scores)
            found[f"nll {word} {V}"] = (ours - plain).abs().max().item()
            found[f"nll gradient {word} {V}"] = (g - h).abs().max().item()
            again = kernels.capped_nll(scores, targets, 30.0)
            found[f"nll again {word} {V}"] = (again - ours).abs().max().item()
        for slope in (0.0, 0.5):
            x, grad = torch.randn(7, 333).to(dtype).requires_grad_(), torch.randn(7, 333).to(dtype)
            ours, plain = kernels.leaky_relu_squared(x, slope), F.leaky_relu(x, slope).square()
            (g,), (h,) = (torch.autograd.grad(y, x, grad) for y in (ours, plain))
            found[f"leaky {word} {slope}"] = ((ours - plain).abs() / (plain.abs() + 1e-3)).max().item()
            found[f"leaky gradient {word} {slope}"] = ((g - h).abs() / (h.abs() + 1e-3)).max().item()
    return found


SIGNATURES = {
    "capped_nll_forward": ("*bf16", "*i64", "*fp32", "*fp32", "i32", "i32", "fp32", 2048),
    "capped_nll_backward": ("*bf16", "*i64", "*fp32", "*fp32", "*bf16", "i32", "i32", "fp32", 2048),
    "leaky_relu_squared_forward": ("*bf16", "*bf16", "i32", "fp32", 1024),
    "leaky_relu_squared_backward": ("*bf16", "*bf16", "*bf16", "i32", "fp32", 1024),
}


def compiled(kernels) -> dict[str, dict]:
    """Registers, spilled bytes and shared memory of each kernel on sm_90, and a hash of its PTX without places in the source."""
    import hashlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    found = {}
    for name, kinds in SIGNATURES.items():
        kernel = getattr(kernels, name)
        names = kernel.arg_names
        signature = dict(zip(names, [*kinds[:-1], "constexpr"], strict=True))
        source = ASTSource(kernel, signature, {(len(names) - 1,): kinds[-1]})
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
        ptx = made.asm["ptx"]
        body = re.sub(r"(?m)^\s*(\.loc|\.file|//).*$|//.*$", "", ptx.partition(".section")[0])
        found[name] = measured(made.asm["cubin"]) | {
            "shared": made.metadata.shared,
            "ptx": hashlib.sha256(body.encode()).hexdigest(),
        }
    return found


def measured(cubin: bytes) -> dict[str, int]:
    """What the assembler made of it: registers a thread, and bytes of its stack and local memory, where spilled ones go."""
    from triton.backends.nvidia import __file__ as backend

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [Path(backend).parent / "bin" / "cuobjdump", "-res-usage", file]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = {word: int(number) for word, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return {"registers": counts["REG"], "spilled": counts["STACK"] + counts["LOCAL"]}


if __name__ == "__main__":
    work = {"interpret": interpret, "compile": compiled}[sys.argv[1]]
    print(json.dumps(work(module(sys.argv[2]))))
