"""Codecs: packing and unpacking 33.4 million int6 symbols, Gaussian or of a real model (artifact=FILE).

Sizes are told as what they exceed the order-0 entropy by. The dictionary coders take minutes at size=full.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from constriction import stream

from pgolf.bench.contest import Contest, DisagreementError, Setting
from pgolf.codec import Brotli, Codec, Lzma, Range, RangeRows, Zstd
from pgolf.errors import UserError
from pgolf.quant.rows import entropy
from pgolf.quant.tensors import QTensor, dequantize
from pgolf.stages.artifact import pack, unpack

CODECS: dict[str, Codec] = {
    "zstd-22": Zstd(level=22, shuffle=True),
    "brotli-11": Brotli(quality=11, shuffle=True),
    "lzma-9e": Lzma(preset=9, extreme=True, shuffle=True),
    "range coder": Range(),
    "range coder by rows": RangeRows(small=Brotli(quality=11, shuffle=True), small_below=16384),
}
SIGMA, C = 2.41, 31


def contests(setting: Setting) -> Iterator[Contest]:
    """Packing and unpacking the tensors of an artifact, by each codec."""
    if setting.artifact is None:
        tensors = gaussian(setting.pick(2**15, 2**21, 33_400_000))
    else:
        tensors = unpack(read(setting.artifact))[0]
    yield packing(tensors)
    yield unpacking(tensors)
    yield decoding(tensors)


def read(path: str) -> bytes:
    """The bytes of an artifact. Raises UserError."""
    try:
        return Path(path).read_bytes()
    except OSError as wrong:
        raise UserError(f"artifact={path}: cannot be read: {wrong.strerror}") from None


def gaussian(count: int) -> dict[str, QTensor]:
    """Rounded Gaussian symbols in matrices of 512 columns, at most 2 M weights each."""
    rng, made = np.random.default_rng(0), {}
    for i, size in enumerate([2**21] * (count // 2**21) + [count % 2**21]):
        if rows := size // 512:
            q = rng.normal(0, SIGMA, (rows, 512)).round().clip(-C, C).astype(np.int8)
            made[f"blocks.{i}.weight"] = QTensor(torch.from_numpy(q), torch.ones(rows, dtype=torch.float16), 6)
    return made


def least_bytes(tensors: dict) -> float:
    """The order-0 entropy of all symbols, and of each byte of a float."""
    return sum(
        entropy_bytes(t.symbols) + entropy_bytes(t.scale) if isinstance(t, QTensor) else entropy_bytes(t)
        for t in tensors.values()
    )


def entropy_bytes(tensor: torch.Tensor) -> float:
    """The entropy of a tensor's byte planes, in bytes."""
    planes = tensor.reshape(-1).view(torch.int8).view(tensor.numel(), tensor.itemsize).mT
    return sum(entropy(plane) * plane.numel() / 8 for plane in planes)


def same(a: dict, b: dict) -> bool:
    """Whether two sets of stored tensors are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(dequantize(a[n]), dequantize(b[n])) for n in a)


def packing(tensors: dict) -> Contest:
    """Encoding: bytes above the order-0 entropy, and seconds."""
    least = least_bytes(tensors)

    def check(made: dict[str, bytes]) -> str:
        for way, data in made.items():
            if not same(tensors, unpack(data)[0]):
                raise DisagreementError(f"{way}: what comes out is not what went in")
        return "what comes out of every file is what went in, to the bit"

    return Contest(
        f"tensors to a file; order-0 entropy {least:,.0f} bytes",
        {way: (lambda codec=codec: pack(tensors, {}, codec)) for way, codec in CODECS.items()},
        check,
        figures=lambda way, data: f"{len(data):,} bytes, {len(data) / least - 1:+.3%}",
    )


def unpacking(tensors: dict) -> Contest:
    """From the file's bytes to the fp32 weights of a state dict."""
    files = {way: pack(tensors, {}, codec) for way, codec in CODECS.items()}

    def loaded(data: bytes) -> dict[str, torch.Tensor]:
        return {name: dequantize(t) for name, t in unpack(data)[0].items()}

    def check(made: dict[str, dict[str, torch.Tensor]]) -> str:
        expected = {name: dequantize(t) for name, t in tensors.items()}
        for way, found in made.items():
            if not all(torch.equal(found[name], W) for name, W in expected.items()):
                raise DisagreementError(f"{way}: other weights")
        return "the same weights from every file"

    return Contest(
        "a file to fp32 weights", {way: (lambda data=data: loaded(data)) for way, data in files.items()}, check
    )


def decoding(tensors: dict) -> Contest:
    """The same by the range coder, against its engine, a library, that decodes as many symbols of such a tensor and no more."""
    stored = [t for t in tensors.values() if isinstance(t, QTensor)]
    symbols = np.concatenate([t.symbols.numpy().ravel() for t in stored]).astype(np.int32)
    symbols -= symbols.min()
    counts = np.bincount(symbols) + 1e-9
    model = stream.model.Categorical(counts / counts.sum(), perfect=False)
    coder = stream.stack.AnsCoder()
    coder.encode_reverse(symbols, model)
    words, data = coder.get_compressed(), pack(tensors, {}, Range())

    def engine() -> int:
        return len(stream.stack.AnsCoder(words).decode(model, len(symbols)))

    def check(made: dict[str, int]) -> str:
        if len({*made.values()}) > 1:
            raise DisagreementError(f"numbers of symbols differ: {made}")
        return f"{len(symbols):,} symbols each"

    def weights() -> int:
        return sum(dequantize(t).numel() for t in unpack(data)[0].values() if isinstance(t, QTensor))

    return Contest("range-coded symbols", {"its engine alone": engine, "a file to fp32 weights": weights}, check)
