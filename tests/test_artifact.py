"""The container: what is packed is unpacked, to the bit; the same bytes every time; no damaged byte is ever believed."""

import json
import random
import struct
import subprocess
import sys
import zlib

import pytest
import torch

from pgolf.artifact import inventory, main, rendered
from pgolf.codec import Brotli, Codec, Lzma, Range, RangeRows, Zstd
from pgolf.errors import ArtifactError
from pgolf.quant.tensors import QTensor
from pgolf.stages import artifact
from pgolf.stages.artifact import pack, unpack
from tests import programs
from tests.options import option
from tests.test_quant import tiny

CODECS = [
    Zstd(level=3, shuffle=True),
    Brotli(quality=5, shuffle=True),
    Lzma(preset=1, extreme=False, shuffle=True),
    Range(),
    RangeRows(small=Brotli(quality=5, shuffle=True), small_below=64),
]
META = {"model": {"width": 8, "names": ["a", "é"]}, "looping": False}


def small(seed: int = 0) -> dict[str, QTensor | torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    symbols = (4 * torch.randn(12, 10, generator=g)).round().clamp(-15, 15).to(torch.int8)
    return {
        "embedding.weight": QTensor(symbols, torch.rand(12, generator=g).half(), 5),
        "scale": torch.randn(7, generator=g),
        "gate": torch.tensor(0.5),
        "none": torch.zeros(0, 3),
        "small.weight": torch.randn(4, 6, generator=g).half(),
    }


def same(a: QTensor | torch.Tensor, b: QTensor | torch.Tensor) -> bool:
    if isinstance(a, QTensor):
        return torch.equal(a.symbols, b.symbols) and torch.equal(a.scale, b.scale) and a.bits == b.bits
    return torch.equal(a, b) and a.dtype == b.dtype


@pytest.mark.parametrize("codec", CODECS, ids=lambda c: c.name)
def test_round_trip_and_determinism(codec: Codec):
    data = pack(small(), META, codec, {"embedding.weight": "embedding"})
    tensors, meta = unpack(data)
    assert meta == META
    assert list(tensors) == list(small())
    assert all(same(a, b) for a, b in zip(small().values(), tensors.values(), strict=True))
    assert data == pack(small(), META, codec, {"embedding.weight": "embedding"})
    tensors["scale"].add_(1)  # what comes out may be written to


def test_the_real_model_survives_the_file():
    model, quant = tiny(), option("quant/int6_round", keep_below=512)
    out = quant.quantize(model, {})
    data = pack(out.tensors, META, Range(), out.sections)
    assert all(same(t, out.tensors[name]) for name, t in unpack(data)[0].items())
    found = inventory(data)
    assert found.total == len(data) == sum(found.sections.values())
    assert set(found.sections) == {"attention", "mlp", "embedding", "control", "overhead"}
    assert found.tensors.keys() == out.tensors.keys()


def test_every_cut_is_refused():
    data = pack(small(), META, Zstd(level=3, shuffle=True))
    for end in range(len(data)):
        with pytest.raises(ArtifactError):
            unpack(data[:end])
    with pytest.raises(ArtifactError, match="length"):
        unpack(data + b"\0")


def test_every_flipped_bit_is_refused():
    data = pack(small(), META, Brotli(quality=5, shuffle=True))
    for place in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[place] ^= 1 << bit
            with pytest.raises(ArtifactError):
                unpack(bytes(broken))


@pytest.mark.parametrize("codec", CODECS, ids=lambda c: c.name)
def test_fuzz(codec: Codec):
    """10,000 mutations for each codec: bytes set, cut out, doubled, moved; none loads, none does anything else than say so."""
    data, rng = pack(small(), META, codec), random.Random(1)
    for _ in range(10_000):
        broken = mutated(data, rng)
        if broken == data:
            continue
        with pytest.raises(ArtifactError):
            unpack(broken)


def mutated(data: bytes, rng: random.Random) -> bytes:
    out, kind = bytearray(data), rng.randrange(4)
    a, b = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    if kind == 0:
        for _ in range(rng.randrange(1, 5)):
            out[rng.randrange(len(out))] = rng.randrange(256)
    elif kind == 1:
        del out[a : b + 1]
    elif kind == 2:
        out[a:a] = out[a : b + 1]
    else:
        out[a : b + 1] = reversed(out[a : b + 1])
    return bytes(out)


def forged(change) -> bytes:
    """A file whose checksums are right and whose index was tampered with: what a liar writes, not what decay makes."""
    rows, meta, start = artifact.read_index(GOOD)
    table = {"meta": meta} | {key: [getattr(r, key) for r in rows] for key in artifact.COLUMNS}
    change(table)
    return sealed(json.dumps(table).encode(), GOOD[start:])


def sealed(text: bytes, rest: bytes, unpacked: int | None = None) -> bytes:
    index = zlib.compress(text)
    size = len(text) if unpacked is None else unpacked
    header = artifact.HEADER.pack(artifact.MAGIC, artifact.VERSION, len(index), size, zlib.crc32(index))
    return header + struct.pack("<I", zlib.crc32(header)) + index + rest


GOOD = pack(small(), META, Zstd(level=3, shuffle=True))


def put(key: str, row: int, value) -> callable:
    def change(table: dict) -> None:
        table[key][row] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("shape", 0, [2**31, 2**31]), "raw"),
        (put("shape", 0, [-1, 10]), "shape"),
        (put("shape", 0, "12"), "shape"),
        (put("raw", 0, 2**60), "raw"),
        (put("length", 0, 2**40), "length"),
        (put("length", 0, 1.0), "length"),
        (put("length", 0, True), "length"),
        (put("offset", 1, 0), "offset"),
        (put("dtype", 0, "object"), "raw"),
        (put("bits", 0, 9), "bits"),
        (put("bits", 2, 5), "bits"),
        (put("codec", 0, "pickle"), "codec"),
        (put("name", 1, "embedding.weight"), "name"),
        (put("name", 1, "elsewhere"), "scale"),
        (put("name", 1, 3), "name"),
        (put("crc", 0, 1), "crc"),
        (lambda table: table["crc"].pop(), "index"),
        (lambda table: table.pop("crc"), "index"),
        (lambda table: table.update(meta=[]), "index"),
        (lambda table: table.update(name={}), "index"),
    ],
)
def test_forged_indices_are_refused_by_field(change, said):
    with pytest.raises(ArtifactError, match=f"^{said}"):
        unpack(forged(change))


def test_forgery_of_the_index_itself():
    assert unpack(forged(lambda table: None))[1] == META
    for text in (b"[]", b"\xff", b"{", b"[" * 100_000, b"null"):
        with pytest.raises(ArtifactError, match=r"^index"):
            unpack(sealed(text, b""))
    with pytest.raises(ArtifactError, match=r"^index"):
        unpack(sealed(b" " * 10_000_000, b"", unpacked=100))
    with pytest.raises(ArtifactError, match=r"^index"):
        unpack(sealed(b"{}", b"", unpacked=2**32 - 1))
    with pytest.raises(ArtifactError, match=r"^magic"):
        unpack(b"PK\x03\x04" + bytes(100))


def test_a_huge_announcement_is_refused_before_it_is_believed():
    def change(table: dict) -> None:
        table["shape"][0], table["raw"][0] = [2**17, 2**17], 2**34

    with pytest.raises(ArtifactError, match=r"^length"):
        unpack(forged(change))


def test_the_table(tmp_path, capsys):
    path = tmp_path / "artifact.pgolf"
    path.write_bytes(pack(small(), META, Zstd(level=3, shuffle=True), {"embedding.weight": "embedding"}))
    assert main([str(path)]) == 0
    text = capsys.readouterr().out
    assert "embedding.weight" in text
    assert "12×10" in text
    assert "overhead" in text
    assert text.strip().splitlines() == rendered(inventory(path.read_bytes()))
    assert main([str(path), "--json"]) == 0
    value = programs.said(capsys.readouterr().out, "pgolf.artifact", 0)
    assert value["bytes"] == path.stat().st_size == sum(value["sections"].values())
    assert value["sections"]["overhead"] + sum(tensor["bytes"] for tensor in value["tensors"]) == value["bytes"]
    assert {tensor["name"]: tensor["shape"] for tensor in value["tensors"]}["embedding.weight"] == [12, 10]
    path.write_bytes(path.read_bytes()[:-1])
    assert main([str(path)]) == 2
    assert "length" in capsys.readouterr().err
    assert main([]) == 2
    assert main([str(tmp_path / "missing")]) == 2


@pytest.mark.slow
def test_from_the_command_line(tmp_path):
    path = tmp_path / "artifact.pgolf"
    path.write_bytes(GOOD[:50])
    command = [sys.executable, "-m", "pgolf.artifact", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "")
    assert programs.refused(done.stdout, 2).startswith(f"{path}: ")
