"""Triton kernels, and how they are called: the loss behind a softcap, and leaky_relu². Each is its plain form to the last
rounding of a sum.

This file ships as it stands, as text in the frozen recipe, and is loaded by `pgolf.machine.kernels`: Triton reads a kernel's
source, so no name in it may change. It imports nothing of pgolf.

Bytes moved, N targets, V pieces, scores in bf16. Plain: scores are read, capped, written in fp32 and read again for the maximum,
the sum and the gradient, 2·N·V·(1 + 1 + 1) + 4·N·V·5 in all at the least; here they are read once forward and once backward, and
the gradient is written over them: 2·N·V·3. At 98,304 × 8192 that is 4.8 GB, 1.4 ms of an H100's 3.35 TB/s, and no fp32 copy
(3.2 GB each) lives at the peak. leaky_relu²: 2 reads or writes forward instead of 4, 3 backward instead of 7, where nothing else
fuses them; torch.compile does as well.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def capped_nll_forward(scores, targets, nll, lse, stride, V, cap, BLOCK: tl.constexpr):
    """A row a program: z = cap · tanh(x / cap), ln Σ e^z in one pass over the row (online), and ln Σ e^z − z_target."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    most = -float("inf")
    total = 0.0
    for first in range(0, V, BLOCK):
        x = tl.load(scores + row * stride + first + at, mask=first + at < V, other=0.0).to(tl.float32)
        e = tl.exp(-2.0 * tl.abs(x) / cap)
        size = cap * (1.0 - e) / (1.0 + e)
        z = tl.where(first + at < V, tl.where(x < 0, -size, size), -float("inf"))
        higher = tl.maximum(most, tl.max(z, 0))
        total = total * tl.exp(most - higher) + tl.sum(tl.exp(z - higher), 0)
        most = higher
    y = tl.load(scores + row * stride + tl.load(targets + row)).to(tl.float32)
    e = tl.exp(-2.0 * tl.abs(y) / cap)
    size = cap * (1.0 - e) / (1.0 + e)
    whole = most + tl.log(total)
    tl.store(lse + row, whole)
    tl.store(nll + row, whole - tl.where(y < 0, -size, size))


@triton.jit
def capped_nll_backward(scores, targets, lse, grad, out, stride, V, cap, BLOCK: tl.constexpr):
    """(softmax(z) − 1_y)(1 − tanh²(x / cap)) · grad of a block of a row, in fp32, stored as scores are."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(scores + row * stride + at, mask=at < V, other=0.0).to(tl.float32)
    e = tl.exp(-2.0 * tl.abs(x) / cap)
    size = (1.0 - e) / (1.0 + e)
    tanh = tl.where(x < 0, -size, size)
    p = tl.exp(cap * tanh - tl.load(lse + row))
    hit = tl.where(at == tl.load(targets + row), 1.0, 0.0)
    g = (p - hit) * (1.0 - tanh * tanh) * tl.load(grad + row)
    tl.store(out + row * V + at, g.to(out.dtype.element_ty), mask=at < V)


@triton.jit
def leaky_relu_squared_forward(x, out, n, slope, BLOCK: tl.constexpr):
    """leaky_relu(x, slope)², rounded after each step as the plain form is."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    kind = x.dtype.element_ty
    a = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
    leaky = tl.where(a > 0, a, a * slope).to(kind).to(tl.float32)
    tl.store(out + at, (leaky * leaky).to(kind), mask=at < n)


@triton.jit
def leaky_relu_squared_backward(x, grad, out, n, slope, BLOCK: tl.constexpr):
    """grad · 2 · leaky · (1 or slope), rounded after each step as the plain form is."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    kind = x.dtype.element_ty
    a = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
    g = tl.load(grad + at, mask=at < n, other=0.0).to(tl.float32)
    leaky = tl.where(a > 0, a, a * slope).to(kind).to(tl.float32)
    d = (g * (2.0 * leaky).to(kind).to(tl.float32)).to(kind).to(tl.float32)
    tl.store(out + at, tl.where(a > 0, d, d * slope).to(kind), mask=at < n)


VOCABULARY_BLOCK, ELEMENTS_BLOCK = 2048, 1024


@torch.library.custom_op(
    "pgolf::capped_nll", mutates_args=(), schema="(Tensor s, Tensor y, float cap) -> (Tensor, Tensor)"
)
def _capped_nll(s, y, cap):
    nll, lse = (torch.empty(s.shape[0], dtype=torch.float32, device=s.device) for _ in range(2))
    capped_nll_forward[(s.shape[0],)](s, y, nll, lse, s.stride(0), s.shape[1], cap, BLOCK=VOCABULARY_BLOCK)
    return nll, lse


@_capped_nll.register_fake
def _(s, y, cap):
    return tuple(torch.empty(s.shape[0], dtype=torch.float32, device=s.device) for _ in range(2))


@torch.library.custom_op(
    "pgolf::capped_nll_grad", mutates_args=(), schema="(Tensor s, Tensor y, Tensor lse, Tensor g, float cap) -> Tensor"
)
def _capped_nll_grad(s, y, lse, g, cap):
    rows, V = s.shape
    out = torch.empty((rows, V), dtype=s.dtype, device=s.device)
    grid = rows, triton.cdiv(V, VOCABULARY_BLOCK)
    capped_nll_backward[grid](s, y, lse, g.contiguous(), out, s.stride(0), V, cap, BLOCK=VOCABULARY_BLOCK)
    return out


@_capped_nll_grad.register_fake
def _(s, y, lse, g, cap):
    return torch.empty(s.shape, dtype=s.dtype, device=s.device)


def _save_capped(ctx, inputs, output):
    s, y, ctx.cap = inputs
    ctx.save_for_backward(s, y, output[1])


def _capped_backward(ctx, g, _):
    return _capped_nll_grad(*ctx.saved_tensors, g, ctx.cap), None, None


_capped_nll.register_autograd(_capped_backward, setup_context=_save_capped)


def capped_nll(scores_NV: Tensor, targets_N: Tensor, cap: float) -> Tensor:
    """−ln softmax(cap · tanh(scores / cap)) at each row's target, (N,) float32; rows of `scores` are contiguous."""
    return _capped_nll(scores_NV, targets_N, cap)[0]


@torch.library.custom_op("pgolf::leaky_relu_squared", mutates_args=(), schema="(Tensor x, float slope) -> Tensor")
def _leaky_relu_squared(x, slope):
    x = x.contiguous()
    out = torch.empty_like(x)
    leaky_relu_squared_forward[(triton.cdiv(x.numel(), ELEMENTS_BLOCK),)](
        x, out, x.numel(), slope, BLOCK=ELEMENTS_BLOCK
    )
    return out


@_leaky_relu_squared.register_fake
def _(x, slope):
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op(
    "pgolf::leaky_relu_squared_grad", mutates_args=(), schema="(Tensor x, Tensor g, float slope) -> Tensor"
)
def _leaky_relu_squared_grad(x, g, slope):
    x, g = x.contiguous(), g.contiguous()
    out, grid = torch.empty_like(x), (triton.cdiv(x.numel(), ELEMENTS_BLOCK),)
    leaky_relu_squared_backward[grid](x, g, out, x.numel(), slope, BLOCK=ELEMENTS_BLOCK)
    return out


@_leaky_relu_squared_grad.register_fake
def _(x, g, slope):
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _save_leaky(ctx, inputs, output):
    x, ctx.slope = inputs
    ctx.save_for_backward(x)


_leaky_relu_squared.register_autograd(
    lambda ctx, g: (_leaky_relu_squared_grad(ctx.saved_tensors[0], g, ctx.slope), None), setup_context=_save_leaky
)


def leaky_relu_squared(x: Tensor, slope: float) -> Tensor:
    """leaky_relu(x, slope)² of a tensor of any shape."""
    return _leaky_relu_squared(x, slope)
