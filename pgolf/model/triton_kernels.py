"""Triton kernels, and how they are called: the loss behind a softcap, leaky_relu², RMS norm + RoPE + gain of heads, exclusive
self-attention + head gate. Each is its plain form to the last rounding of a sum.

This file ships as it stands, as text in the frozen recipe, and is loaded by `pgolf.machine.kernels`: Triton reads a kernel's
source, so no name in it may change. It imports nothing of pgolf.

Bytes moved, N targets, V pieces, scores in bf16. Plain: scores are read, capped, written in fp32 and read again for the maximum,
the sum and the gradient, 2·N·V·(1 + 1 + 1) + 4·N·V·5 in all at the least; here they are read once forward and once backward, and
the gradient is written over them: 2·N·V·3. At 98,304 × 8192 that is 4.8 GB, 1.4 ms of an H100's 3.35 TB/s, and no fp32 copy
(3.2 GB each) lives at the peak. leaky_relu²: 2 reads or writes forward instead of 4, 3 backward instead of 7, where nothing else
fuses them; torch.compile does as well.

Heads, bytes a token and layer of 8 query heads over 4 of 64, bf16, forward + backward, as Inductor's scheduler counts what it
would compile (on a CPU) against what must be moved, which these kernels do: norm, RoPE and gain of q 13,312 against 5,120 (x and
the output; x, its gradient and the output's), of k 4,688 against 2,560, exclusive self-attention with its gate 12,584 against
6,704 (y, v, the gate and the output; those and their gradients). At 98,304 tokens 1.6 GB a layer, .48 ms of 3.35 TB/s.
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


@triton.jit
def heads_forward(x, gain, cos, sin, out, tokens, T, H: tl.constexpr, D: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr,
                  WIDE: tl.constexpr):  # fmt: skip
    """Tokens of a head: x / √(mean x² + ε), the pairs (j, j + N) turned, times the head's gain, rounded as the plain form is."""
    kind = x.dtype.element_ty
    token, j, head = (
        tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None],
        tl.arange(0, WIDE)[None, :],
        tl.program_id(1),
    )
    at = (token.to(tl.int64) * H + head) * D
    other = tl.where(j < N, j + N, tl.where(j < 2 * N, j - N, j))
    here, turned = (token < tokens) & (j < D), (token < tokens) & (j < 2 * N)
    a = tl.load(x + at + j, mask=here, other=0.0).to(tl.float32)
    b = tl.load(x + at + other, mask=here, other=0.0).to(tl.float32)
    c = tl.load(cos + (token % T) * N + j % N, mask=turned, other=1.0).to(kind).to(tl.float32)
    s = tl.load(sin + (token % T) * N + j % N, mask=turned, other=0.0).to(kind).to(tl.float32)
    r = tl.rsqrt(tl.sum(a * a, 1) / D + 1.1920928955078125e-07)[:, None]
    a, b = (a * r).to(kind).to(tl.float32), (b * r).to(kind).to(tl.float32)
    y = (a * c).to(kind).to(tl.float32) + tl.where(j < N, 1.0, -1.0) * (b * s).to(kind).to(tl.float32)
    y = y.to(kind).to(tl.float32) * tl.load(gain + head).to(kind).to(tl.float32)
    tl.store(out + at + j, y.to(kind), mask=here)


@triton.jit
def heads_backward(x, gain, cos, sin, grad, out, part, tokens, T, H: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
                   BLOCK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Of the same tokens: r (d − x r² mean(d x)), d = grad · gain turned back, and this block's part of the gain's gradient."""
    kind = x.dtype.element_ty
    token, j, head = (
        tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None],
        tl.arange(0, WIDE)[None, :],
        tl.program_id(1),
    )
    at = (token.to(tl.int64) * H + head) * D
    other = tl.where(j < N, j + N, tl.where(j < 2 * N, j - N, j))
    here, turned = (token < tokens) & (j < D), (token < tokens) & (j < 2 * N)
    a = tl.load(x + at + j, mask=here, other=0.0).to(tl.float32)
    g = tl.load(grad + at + j, mask=here, other=0.0).to(tl.float32)
    h = tl.load(grad + at + other, mask=here, other=0.0).to(tl.float32)
    c = tl.load(cos + (token % T) * N + j % N, mask=turned, other=1.0).to(kind).to(tl.float32)
    s = tl.load(sin + (token % T) * N + j % N, mask=turned, other=0.0).to(kind).to(tl.float32)
    back = g * c - tl.where(j < N, 1.0, -1.0) * h * s
    r = tl.rsqrt(tl.sum(a * a, 1) / D + 1.1920928955078125e-07)[:, None]
    tl.store(part + tl.program_id(0) * H + head, tl.sum(tl.sum(back * a * r, 1), 0))
    d = back * tl.load(gain + head).to(kind).to(tl.float32)
    mean = (tl.sum(d * a, 1) / D)[:, None]
    tl.store(out + at + j, (r * (d - a * r * r * mean)).to(kind), mask=here)


@triton.jit
def exclusive_forward(y, v, gate, out, tokens, K: tl.constexpr, G: tl.constexpr, D: tl.constexpr, GATED: tl.constexpr,
                      BLOCK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Tokens of a group of G heads: (y − (y · u) u) · gate, u = v / ‖v‖, rounded as the plain form is."""
    kind = y.dtype.element_ty
    token, j, group = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WIDE)[None, :], tl.program_id(1)
    here = (token < tokens)[:, None] & (j < D)
    wide = token.to(tl.int64)
    a = tl.load(v + (wide * K + group)[:, None] * D + j, mask=here, other=0.0).to(tl.float32)
    size = tl.maximum(tl.sqrt(tl.sum(a * a, 1)).to(kind).to(tl.float32), 1e-12)[:, None]
    u = (a / size).to(kind).to(tl.float32)
    for i in tl.static_range(G):
        head = (wide * K + group) * G + i
        b = tl.load(y + head[:, None] * D + j, mask=here, other=0.0).to(tl.float32)
        along = tl.sum((b * u).to(kind).to(tl.float32), 1).to(kind).to(tl.float32)[:, None]
        z = (b - (along * u).to(kind).to(tl.float32)).to(kind).to(tl.float32)
        if GATED:
            z *= tl.load(gate + head, mask=token < tokens, other=0.0).to(tl.float32)[:, None]
        tl.store(out + head[:, None] * D + j, z.to(kind), mask=here)


@triton.jit
def exclusive_backward(y, v, gate, grad, dy, dv, dgate, tokens, K: tl.constexpr, G: tl.constexpr, D: tl.constexpr,
                       GATED: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Of the same tokens, d = grad · gate: d − (d · u) u to y; to u, summed over heads, −(y · u) d − (d · u) y, and on to v."""
    kind = y.dtype.element_ty
    token, j, group = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WIDE)[None, :], tl.program_id(1)
    here = (token < tokens)[:, None] & (j < D)
    wide = token.to(tl.int64)
    a = tl.load(v + (wide * K + group)[:, None] * D + j, mask=here, other=0.0).to(tl.float32)
    size = tl.maximum(tl.sqrt(tl.sum(a * a, 1)).to(kind).to(tl.float32), 1e-12)[:, None]
    u = (a / size).to(kind).to(tl.float32)
    du = tl.zeros_like(u)
    for i in tl.static_range(G):
        head = (wide * K + group) * G + i
        b = tl.load(y + head[:, None] * D + j, mask=here, other=0.0).to(tl.float32)
        d = tl.load(grad + head[:, None] * D + j, mask=here, other=0.0).to(tl.float32)
        along = tl.sum(b * u, 1)[:, None]
        if GATED:
            tl.store(dgate + head, tl.sum(d * (b - along * u), 1).to(kind), mask=token < tokens)
            d *= tl.load(gate + head, mask=token < tokens, other=0.0).to(tl.float32)[:, None]
        across = tl.sum(d * u, 1)[:, None]
        tl.store(dy + head[:, None] * D + j, (d - across * u).to(kind), mask=here)
        du -= along * d + across * b
    tl.store(
        dv + (wide * K + group)[:, None] * D + j, ((du - tl.sum(du * u, 1)[:, None] * u) / size).to(kind), mask=here
    )


VOCABULARY_BLOCK, ELEMENTS_BLOCK, TOKENS_BLOCK = 2048, 1024, 8


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


@torch.library.custom_op(
    "pgolf::heads", mutates_args=(), schema="(Tensor x, Tensor gain, Tensor cos, Tensor sin) -> Tensor"
)
def _heads(x, gain, cos, sin):
    x, (B, T, H, D) = x.contiguous(), x.shape
    out, grid = torch.empty_like(x), (triton.cdiv(B * T, TOKENS_BLOCK), H)
    sizes = H, D, cos.shape[-1], TOKENS_BLOCK, triton.next_power_of_2(D)
    heads_forward[grid](x, gain, cos.contiguous(), sin.contiguous(), out, B * T, T, *sizes)
    return out


@_heads.register_fake
def _(x, gain, cos, sin):
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op(
    "pgolf::heads_grad",
    mutates_args=(),
    schema="(Tensor x, Tensor gain, Tensor cos, Tensor sin, Tensor g) -> (Tensor, Tensor)",
)
def _heads_grad(x, gain, cos, sin, g):
    x, (B, T, H, D) = x.contiguous(), x.shape
    out, grid = torch.empty_like(x), (triton.cdiv(B * T, TOKENS_BLOCK), H)
    part = torch.empty(grid, dtype=torch.float32, device=x.device)
    sizes = H, D, cos.shape[-1], TOKENS_BLOCK, triton.next_power_of_2(D)
    heads_backward[grid](x, gain, cos.contiguous(), sin.contiguous(), g.contiguous(), out, part, B * T, T, *sizes)
    return out, part.sum(0).to(gain.dtype)


@_heads_grad.register_fake
def _(x, gain, cos, sin, g):
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(gain)


_heads.register_autograd(
    lambda ctx, g: (*_heads_grad(*ctx.saved_tensors, g), None, None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def normed_heads(x_BTHD: Tensor, cos: Tensor, sin: Tensor, gain_H: Tensor | None) -> Tensor:
    """RMS norm of each head, its first dimensions turned by the tables (T, 1, n), times the head's gain (None: 1)."""
    gain_H = torch.ones(x_BTHD.shape[2], device=x_BTHD.device) if gain_H is None else gain_H
    return _heads(x_BTHD, gain_H, cos, sin)


@torch.library.custom_op("pgolf::exclusive", mutates_args=(), schema="(Tensor y, Tensor v, Tensor gate) -> Tensor")
def _exclusive(y, v, gate):
    y, v, gate = y.contiguous(), v.contiguous(), gate.contiguous()
    (B, T, H, D), K = y.shape, v.shape[2]
    out, grid = torch.empty_like(y), (triton.cdiv(B * T, TOKENS_BLOCK), K)
    sizes = K, H // K, D, gate.numel() > 0, TOKENS_BLOCK, triton.next_power_of_2(D)
    exclusive_forward[grid](y, v, gate, out, B * T, *sizes)
    return out


@_exclusive.register_fake
def _(y, v, gate):
    return torch.empty(y.shape, dtype=y.dtype, device=y.device)


@torch.library.custom_op(
    "pgolf::exclusive_grad",
    mutates_args=(),
    schema="(Tensor y, Tensor v, Tensor gate, Tensor g) -> (Tensor, Tensor, Tensor)",
)
def _exclusive_grad(y, v, gate, g):
    y, v, gate, g = y.contiguous(), v.contiguous(), gate.contiguous(), g.contiguous()
    (B, T, H, D), K = y.shape, v.shape[2]
    out, grid = tuple(map(torch.empty_like, (y, v, gate))), (triton.cdiv(B * T, TOKENS_BLOCK), K)
    sizes = K, H // K, D, gate.numel() > 0, TOKENS_BLOCK, triton.next_power_of_2(D)
    exclusive_backward[grid](y, v, gate, g, *out, B * T, *sizes)
    return out


@_exclusive_grad.register_fake
def _(y, v, gate, g):
    return tuple(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (y, v, gate))


_exclusive.register_autograd(
    lambda ctx, g: _exclusive_grad(*ctx.saved_tensors, g),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def exclusive_heads(y_BTHD: Tensor, v_BTKD: Tensor, gate_BTH: Tensor | None) -> Tensor:
    """Each head's output without its component along the position's own value, times the head's gate (None: 1)."""
    return _exclusive(y_BTHD, v_BTKD, y_BTHD.new_empty(0) if gate_BTH is None else gate_BTH)
