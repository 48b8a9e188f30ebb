"""A training step as published scripts write it: plain eager torch, one rank, with dense tables and loops over tensors.

The model is pull request 606's kind, its numbers from the recipe; parameters have pgolf's names, so that both can begin at the
same weights. What published scripts do and a CPU punishes is written in the form that is fastest here: their RMS norm is a
call of `F.rms_norm`, which takes three times as long as the same written out, and is no technique."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgolf.bench.muon import newton_schulz
from pgolf.data.loaders import Batches
from pgolf.errors import UserError
from pgolf.model import GPT
from pgolf.model.activation import LeakyReluSquared
from pgolf.model.attention import Causal
from pgolf.model.kinds import Skips
from pgolf.optim import Muon, MuonAdamW
from pgolf.optim.kinds import Coefficients
from pgolf.recipe import Recipe
from pgolf.schedule import Progress

EPS = torch.finfo(torch.float32).eps


def require_kind(recipe: Recipe) -> None:
    """Raises UserError for a recipe with parts that this script does not have."""
    spec, optim = recipe.model, recipe.optim
    absent = (
        not isinstance(spec, GPT)
        or not isinstance(spec.activation, LeakyReluSquared)
        or not isinstance(spec.attention, Causal)
        or not (spec.tied and spec.smear and spec.bigram and spec.value_embedding and spec.resid_mix and spec.softcap)
        or (spec.skips, spec.embed_width) != (Skips.PLAIN, spec.width)
        or any((spec.head_gate, spec.window_smear, spec.lanes, spec.loop, spec.value_residual, spec.parallel_from))
        or not isinstance(optim, MuonAdamW)
        or not isinstance(optim.matrix, Muon)
        or (optim.matrix.ns_steps, optim.matrix.coefficients) != (5, Coefficients.QUINTIC)
        or optim.matrix.row_normalize
    )
    if absent:
        raise UserError(
            "the recipe's model or optimiser has parts that the script written as published ones does not have"
        )


def rms_norm(x: Tensor) -> Tensor:
    """x / √(mean x² + ε) over the last axis."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)


class Projection(nn.Module):
    """x Wᵀ."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Rotary(nn.Module):
    """cos and sin of the angles, for sequences of `length`."""

    def __init__(self, dims: int, base: float, length: int):
        super().__init__()
        inverse = base ** -(torch.arange(0, dims, 2) / dims)
        angles = torch.outer(torch.arange(length).float(), inverse)[None, :, None, :]
        self.cos, self.sin = angles.cos(), angles.sin()

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.cos, self.sin


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The first dimensions of x (B, T, H, D) turned in pairs half of them apart."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cos + b * sin, b * cos - a * sin, rest), dim=-1)


class Attention(nn.Module):
    """Grouped heads, queries and keys normed and rotated; in the last layers without the part along the own value."""

    def __init__(self, spec: GPT, index: int):
        super().__init__()
        self.heads, self.kv_heads = spec.heads, spec.kv_heads
        self.q, self.k = Projection(spec.width, spec.width), Projection(spec.width, spec.kv_width)
        self.v, self.out = Projection(spec.width, spec.kv_width), Projection(spec.width, spec.width)
        self.q_gain = nn.Parameter(torch.empty(spec.heads))
        self.exclusive = index >= spec.layers - spec.xsa_layers
        if index in spec.value_embedding.layers:
            self.value_embedding_scale = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], extra: Tensor) -> Tensor:
        B, T, C = x.shape
        q = rotated(rms_norm(self.q(x).view(B, T, self.heads, -1)), *rotary) * self.q_gain[None, None, :, None]
        k = rotated(rms_norm(self.k(x).view(B, T, self.kv_heads, -1)), *rotary)
        v = self.v(x)
        if hasattr(self, "value_embedding_scale"):
            v = v + extra * self.value_embedding_scale
        v = v.view(B, T, self.kv_heads, -1)
        q, k, values = (t.transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, values, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        y = y.transpose(1, 2)
        if self.exclusive:
            y = y.reshape(B, T, self.kv_heads, self.heads // self.kv_heads, -1)
            direction = F.normalize(v, dim=-1)[:, :, :, None]
            y = y - (y * direction).sum(-1, keepdim=True) * direction
        return self.out(y.reshape(B, T, C))


class MLP(nn.Module):
    """Up, leaky ReLU squared, down."""

    def __init__(self, spec: GPT):
        super().__init__()
        self.up, self.down = Projection(spec.width, spec.mlp_hidden), Projection(spec.mlp_hidden, spec.width)
        self.slope = spec.activation.slope

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.leaky_relu(self.up(x), self.slope).square())


class Block(nn.Module):
    """Attention and MLP on the stream, into which the first one is mixed."""

    def __init__(self, spec: GPT, index: int):
        super().__init__()
        self.attn, self.mlp = Attention(spec, index), MLP(spec)
        self.attn_scale, self.mlp_scale = (nn.Parameter(torch.empty(spec.width)) for _ in range(2))
        self.resid_mix = nn.Parameter(torch.empty(2, spec.width))
        self.gain = (index + 1) ** -0.5 if spec.ln_scale else 1.0

    def forward(self, x: Tensor, x0: Tensor, rotary: tuple[Tensor, Tensor], extra: Tensor) -> Tensor:
        x = self.resid_mix[0] * x + self.resid_mix[1] * x0
        x = x + self.attn_scale * self.attn(rms_norm(x) * self.gain, rotary, extra)
        return x + self.mlp_scale * self.mlp(rms_norm(x) * self.gain)


class Smear(nn.Module):
    """Each position blended with the one before."""

    def __init__(self, width: int):
        super().__init__()
        self.gate = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        g = torch.sigmoid(self.gate)
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        return (1 - g) * x + g * before


class Extra(nn.Module):
    """A dense table, projected where it is narrower, times a learned number."""

    def __init__(self, rows: int, dim: int, width: int):
        super().__init__()
        self.table = nn.Embedding(rows, dim)
        self.proj = Projection(dim, width) if dim != width else None
        self.scale = nn.Parameter(torch.empty(()))

    def forward(self, index: Tensor) -> Tensor:
        h = self.table(index)
        return (h if self.proj is None else self.proj(h)) * self.scale


class Script(nn.Module):
    """The model; its output is the mean loss."""

    def __init__(self, spec: GPT, length: int):
        super().__init__()
        self.slots, self.softcap = spec.bigram.slots, spec.softcap
        self.embedding = nn.Embedding(spec.vocab_size, spec.width)
        self.bigram = Extra(spec.bigram.slots, spec.bigram.dim, spec.width)
        self.smear = Smear(spec.width)
        self.value_embedding = Extra(spec.vocab_size, spec.value_embedding.dim, spec.kv_width)
        self.rotary = Rotary(spec.rope_dims, spec.rope_base, length)
        self.blocks = nn.ModuleList(Block(spec, i) for i in range(spec.layers))
        self.encoders = spec.layers // 2
        self.skip_weights = nn.Parameter(torch.empty(self.encoders, spec.width))

    def hashed(self, ids: Tensor) -> Tensor:
        """The row of each pair of tokens in the table of bigrams."""
        ids, last = ids.to(torch.int32), self.slots - 1
        rows = torch.empty_like(ids)
        rows[:, 0] = last
        rows[:, 1:] = torch.bitwise_xor(36313 * ids[:, 1:], 27191 * ids[:, :-1]) % last
        return rows

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.smear(rms_norm(self.embedding(ids) + self.bigram(self.hashed(ids))))
        x0, extra, rotary, skips = x, self.value_embedding(ids), self.rotary(), []
        for i, block in enumerate(self.blocks):
            if i >= self.encoders and skips:
                x = x + self.skip_weights[i - self.encoders] * skips.pop()
            x = block(x, x0, rotary, extra)
            if i < self.encoders:
                skips.append(x)
        scores = F.linear(rms_norm(x).flatten(0, 1), self.embedding.weight)
        scores = self.softcap * torch.tanh(scores / self.softcap)
        return F.cross_entropy(scores.float(), targets.flatten())


class LoopedMuon(torch.optim.Optimizer):
    """Muon, one matrix after the other."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, weight_decay: float):
        super().__init__(matrices, dict(lr=lr, weight_decay=weight_decay, momentum=0.95))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p.grad))
                buffer.mul_(group["momentum"]).add_(p.grad)
                update = newton_schulz(p.grad.add(buffer, alpha=group["momentum"]), torch.float32)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


class Training:
    """The script's training step, from `weights` by pgolf's names, its model handed to torch.compile where the recipe's machine
    says so. Raises UserError for a recipe of another kind."""

    def __init__(self, recipe: Recipe, weights: dict[str, Tensor], batches: Batches):
        require_kind(recipe)
        self.recipe, self.batches, optim = recipe, batches, recipe.optim
        self.model = Script(recipe.model, recipe.data.sequence_length)
        self.model.load_state_dict(weights)
        projections = [m for m in self.model.modules() if isinstance(m, Projection)]
        tables = [m.weight for m in self.model.modules() if isinstance(m, nn.Embedding)]
        matrices = [m.weight for m in projections]
        taken = {id(p) for p in matrices + tables}
        scalars = [p for p in self.model.parameters() if id(p) not in taken]
        self.muon = LoopedMuon(matrices, optim.matrix.lr, optim.matrix.weight_decay)
        groups = [
            dict(params=kind, lr=adam.lr, weight_decay=adam.weight_decay)
            for kind, adam in ((tables, optim.embedding), (scalars, optim.scalar))
        ]
        self.adam = torch.optim.AdamW(groups, betas=optim.betas, eps=optim.eps, fused=True)
        self.optimizers = (self.muon, self.adam)
        self.rates = [[group["lr"] for group in each.param_groups] for each in self.optimizers]
        self.average = {name: t.detach().float().clone() for name, t in self.model.state_dict().items()}
        if recipe.machine.compile:
            self.model.compile(dynamic=False, fullgraph=True)

    def step(self, progress: Progress) -> Tensor:
        """Forward, backward, clip, optimisers, moving average. Returns the loss."""
        schedule, decay = self.recipe.schedule, self.recipe.average.decay
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * schedule.lr(progress)
        self.muon.param_groups[0]["momentum"] = schedule.momentum(progress.step)
        rows = torch.from_numpy(self.batches.gather(self.batches.next())).long()
        loss = self.model(rows[:, :-1], rows[:, 1:])
        loss.backward()
        if self.recipe.optim.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optim.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, t in self.model.state_dict().items():
                self.average[name].mul_(decay).add_(t.float(), alpha=1 - decay)
        return loss.detach()
