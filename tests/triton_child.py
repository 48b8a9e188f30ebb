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
        found |= {f"heads {name}": apart for name, apart in of_heads(kernels, dtype).items()}
    return found


def of_heads(kernels, dtype) -> dict[str, float]:
    """How far the kernels of heads are from the plain form in float64: values and gradients in units of the distance that the
    plain form in `dtype` has from it, and the largest relative to the size of what is compared."""
    import torch
    import torch.nn.functional as F

    def turned(x, cos, sin, gain):
        cos, sin, (n, D) = cos.to(x.dtype), sin.to(x.dtype), (cos.shape[-1], x.shape[-1])
        wide = x if x.dtype == torch.float64 else x.float()
        eps = torch.finfo(torch.float32).eps
        a, b, rest = (
            (wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()).to(x.dtype).split([n, n, D - 2 * n], -1)
        )
        return torch.cat([a * cos + b * sin, b * cos - a * sin, rest], -1) * gain[:, None].to(x.dtype)

    def exclusive(y, v, gate=None):
        (B, T, K, D), u = v.shape, F.normalize(v, dim=-1).unsqueeze(3)
        y = y.view(B, T, K, -1, D)
        z = (y - (y * u).sum(-1, keepdim=True) * u).flatten(2, 3)
        return z if gate is None else z * gate[..., None]

    found = {}
    for B, T, H, K, D, n in ((2, 21, 4, 2, 64, 8), (1, 5, 3, 1, 24, 4), (3, 16, 2, 2, 16, 8)):
        angle = torch.rand(T, 1, n) * 6
        x, v = torch.randn(B, T, H, D), torch.randn(B, T, K, D)
        gate, gain = torch.rand(B, T, H), torch.rand(H) + 1
        for name, ours, plain, inputs, fixed in (
            ("turned", kernels.normed_heads, turned, (x.to(dtype), gain), (angle.cos(), angle.sin())),
            ("exclusive", kernels.exclusive_heads, exclusive, (x.to(dtype), v.to(dtype)), (None,)),
            ("gated", kernels.exclusive_heads, exclusive, (x.to(dtype), v.to(dtype), gate.to(dtype)), ()),
        ):
            grad, made = torch.randn(B, T, H, D).to(dtype), []
            for call, kind in ((ours, None), (ours, None), (plain, None), (plain, torch.float64)):
                given = [t.detach().to(kind or t.dtype).requires_grad_() for t in inputs]
                y = call(given[0], *fixed, *given[1:]) if name == "turned" else call(*given, *fixed)
                made.append([y.detach(), *torch.autograd.grad(y, given, grad.to(y.dtype))])
            word = f"{name} {str(dtype).removeprefix('torch.')} {D}"
            kernel, again, near, exact = ([t.double() for t in each] for each in made)
            far = [
                [((a - b).norm() / b.norm()).item() for a, b in zip(each, exact, strict=True)]
                for each in (kernel, near)
            ]
            found[f"{word} value"] = far[0][0] / (far[1][0] + 1e-9)
            found[f"{word} gradients"] = max(a / (b + 1e-9) for a, b in zip(far[0][1:], far[1][1:], strict=True))
            found[f"{word} from exact"] = max(far[0])
            found[f"{word} again"] = max((a - b).abs().max().item() for a, b in zip(kernel, again, strict=True))
    return found


# Kinds of the arguments of each kernel, then the values of those that are constants: heads of 64, 8 over 4, 16 dimensions turned.
SIGNATURES = {
    "capped_nll_forward": ("*bf16 *i64 *fp32 *fp32 i32 i32 fp32", (2048,)),
    "capped_nll_backward": ("*bf16 *i64 *fp32 *fp32 *bf16 i32 i32 fp32", (2048,)),
    "leaky_relu_squared_forward": ("*bf16 *bf16 i32 fp32", (1024,)),
    "leaky_relu_squared_backward": ("*bf16 *bf16 *bf16 i32 fp32", (1024,)),
    "heads_forward": ("*bf16 *fp32 *fp32 *fp32 *bf16 i32 i32", (8, 64, 8, 8, 64)),
    "heads_backward": ("*bf16 *fp32 *fp32 *fp32 *bf16 *bf16 *fp32 i32 i32", (8, 64, 8, 8, 64)),
    "exclusive_forward": ("*bf16 *bf16 *bf16 *bf16 i32", (4, 2, 64, True, 8, 64)),
    "exclusive_backward": ("*bf16 *bf16 *bf16 *bf16 *bf16 *bf16 *bf16 i32", (4, 2, 64, True, 8, 64)),
}


def compiled(kernels) -> dict[str, dict]:
    """Registers, spilled bytes and shared memory of each kernel on sm_90, and a hash of its PTX without places in the source."""
    import hashlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    found = {}
    for name, (kinds, values) in SIGNATURES.items():
        kernel, first = getattr(kernels, name), len(kinds.split())
        signature = dict(zip(kernel.arg_names, [*kinds.split(), *["constexpr"] * len(values)], strict=True))
        source = ASTSource(kernel, signature, {(first + i,): value for i, value in enumerate(values)})
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
