"""Contests of `bench gpu` that run whole stages: a score-first chunk, documents with adapters, sealing, collectives.

The text is drawn, and but for sealing so are the weights: what is compared is time, and what two ways make of the same."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from pgolf.bench.contest import Contest, DisagreementError, Setting
from pgolf.config.compose import register_experiments, rehearse
from pgolf.data.bytes import ByteTable
from pgolf.machine.kernels import AutoKernels
from pgolf.machine.world import World, all_gather_single, reduce_scatter_single
from pgolf.stages.evaluate import evaluate
from pgolf.stages.judge import load
from pgolf.stages.seal import Packed, calibrate, compress
from pgolf.stages.train import Trainer

if TYPE_CHECKING:
    from pgolf.eval.ledger import Score
    from pgolf.model.transformer import Transformer
    from pgolf.recipe import Recipe

SMALL = (
    *("scale=laptop", "model.width=64", "model.embed_width=64", "model.mlp_hidden=128", "model.rope_dims=16"),
    *("data.batch_tokens=1024", "data.sequence_length=128", "data.dev_tokens=4096", "data.dev_checks=1"),
    *("data.val_fraction=0.0025", "eval.context=128", "eval.batch_windows=8"),
)
BOS = 1


def recipe(setting: Setting, system: str, *words: str) -> "Recipe":
    """The system as one rank runs it here; small unless size=full."""
    register_experiments()
    sized = setting.pick(SMALL, SMALL, ())
    here = (f"machine.device={setting.device.upper()}", "machine.ranks=1", "limits.train_steps=1")
    return rehearse([f"experiment={system}", *sized, *here, *words], sweep=False)[0].recipe


def judged(
    setting: Setting, here: "Recipe", model: "Transformer", ids: np.ndarray, *, compiled: bool
) -> Callable[[], "Score"]:
    """The whole evaluation of drawn tokens, each time from the same weights."""
    vocabulary = model.spec.vocab_size
    boundary = np.arange(vocabulary) == BOS
    table = ByteTable(np.ones(vocabulary, np.int16), np.zeros(vocabulary, bool), boundary)
    world = World.alone(setting.device)
    return lambda: evaluate(world, deepcopy(model), ids, table, here.eval, here.ttt, compile=compiled)


def drawn(vocabulary: int, documents: int, length: int) -> np.ndarray:
    """Documents of `length` tokens, each opened by the token of a document's beginning, and the one that ends the last."""
    ids = np.random.default_rng(0).integers(BOS + 1, vocabulary, size=documents * length + 1).astype(np.uint16)
    ids[::length] = BOS
    return ids


def equal_scores(made: dict[str, "Score"], allowed: float) -> str:
    """Raises DisagreementError where nats per token are further apart than `allowed`."""
    nats = [score.val_loss for score in made.values()]
    apart = max(nats) - min(nats)
    if not apart <= allowed:
        raise DisagreementError(f"nats per token {apart:.2e} apart")
    return f"nats per token at most {apart:.1e} apart"


def nats(way: str, score: "Score") -> str:
    """Nats per token, in words."""
    return f"{score.val_loss:.6f} nats"


def chunk(setting: Setting) -> Contest:
    """A chunk scored in windows, then trained on: eagerly, as published scripts do it, and compiled."""
    tokens = setting.pick(256, 1024, 32_768)
    whole = recipe(setting, "pr606_int5_softround")
    here = replace(whole, ttt=whole.ttt.shortened(tokens))
    model = here.model.build(0, torch.device(setting.device))
    eager, fused = model, deepcopy(model)
    AutoKernels(source=None).install(fused)
    ids = drawn(model.spec.vocab_size, 1, here.ttt.chunk_tokens + here.eval.stride)
    return Contest(
        f"score-first chunk of {here.ttt.chunk_tokens:,} tokens, pr606",
        {
            "eager, as published scripts do it": judged(setting, here, eager, ids, compiled=False),
            "compiled": judged(setting, here, fused, ids, compiled=True),
        },
        lambda made: equal_scores(made, 0.02),
        figures=nats,
    )


def documents(setting: Setting) -> Contest:
    """A batch of documents with adapters, scores rounded to bf16 before the softcap as published, and kept in float32."""
    count, length = setting.pick(2, 4, 64), setting.pick(48, 192, 192)
    whole = recipe(setting, "pr1855_record")
    short = () if setting.size == "full" else (16,)
    here = replace(whole, ttt=replace(whole.ttt, documents=count, chunk_tokens=(*short, 48)[0]))
    model = here.model.build(0, torch.device(setting.device))
    AutoKernels(source=None).install(model)
    rounded = deepcopy(model)
    rounded.head.register_forward_hook(lambda _, inputs, scores: scores.bfloat16().float())
    run = partial(judged, setting, here, ids=drawn(model.spec.vocab_size, count, length), compiled=False)
    return Contest(
        f"{count} documents of {length} with adapters, pr1855, eager",
        {"scores in bf16, as published": run(rounded), "scores in fp32": run(model)},
        lambda made: equal_scores(made, 0.02),
        figures=nats,
    )


def sealing(setting: Setting) -> Contest:
    """From the end of training to the artifact, on this machine's own text, and whether CPU and device judge it alike."""
    here = recipe(setting, "pr606_int5_softround", "data=stdlib")
    device, budget = torch.device(setting.device), here.limits.artifact_bytes
    trainer = Trainer(World.alone(setting.device), here, here.data.prepare(lambda what, done: None).training)
    trainer.loader.close()
    trainer.model.set_looping(True)
    ids = torch.from_numpy(drawn(here.model.vocab_size, 1, here.data.sequence_length).astype(np.int64))[None]

    def nll(data: bytes, where: torch.device) -> torch.Tensor:
        with TemporaryDirectory() as folder:
            (file := Path(folder) / "artifact").write_bytes(data)
            model = load(file, sha256(data).hexdigest(), here.model.vocab_size, World.alone(str(where)))
        with torch.no_grad():
            return model.nll(ids[:, :-1].to(where), ids[:, 1:].to(where)).cpu()

    def check(made: dict[str, Packed]) -> str:
        (packed,) = made.values()
        there, on_cpu = (nll(packed.data, where) for where in (device, torch.device("cpu")))
        apart = (there - on_cpu).mean().abs().item()
        if not apart < 5e-3:
            raise DisagreementError(f"CPU and {setting.device} judge an artifact {apart:.2e} nats per token apart")
        return f"CPU and {setting.device} judge it {apart:.1e} nats per token apart"

    return Contest(
        "end of training to artifact, pr606 (public logs: 80 s)",
        {"calibrate, quantise, pack": lambda: compress(trainer, calibrate(trainer, lambda: False), budget)},
        check,
        figures=lambda way, packed: f"{len(packed.data):,} bytes",
    )


def collectives(setting: Setting) -> Iterator[Contest]:
    """NCCL (gloo on a CPU) with one rank: what is summed, scattered and gathered is what was given."""
    size = setting.pick(1 << 12, 1 << 20, 1 << 26)
    given = torch.randn(size, device=setting.device)

    def through() -> list[Any]:
        summed, part, whole = given.clone(), torch.empty_like(given), torch.empty_like(given)
        dist.all_reduce(summed)
        reduce_scatter_single(part, given)
        all_gather_single(whole, part)
        return [summed, whole]

    def check(made: dict[str, list[Any]]) -> str:
        if not all(torch.equal(t, given) for results in made.values() for t in results):
            raise DisagreementError("a collective with one rank changed what it was given")
        return "unchanged to the bit"

    with one_rank(setting.device):
        ways = {"three copies": lambda: [given.clone() for _ in range(3)], "three collectives": through}
        yield Contest(f"{4 * size / 1e6:,.0f} MB through collectives of one rank", ways, check)


@contextmanager
def one_rank(device: str) -> Iterator[None]:
    """A process group of this process alone, met in a file of its own."""
    with TemporaryDirectory() as folder:
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()
