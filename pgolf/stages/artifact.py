"""The sealed file: a checked header, a compressed JSON index, and one encoded stream after another. Reading it runs no
code from it, allocates nothing that was not announced and bounded, and accepts no byte that differs from what was written.
`python -m pgolf.artifact FILE` prints what is inside."""

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgolf.codec import Codec, decode
from pgolf.errors import ArtifactError
from pgolf.files.frozen import family
from pgolf.quant.forms import Extra
from pgolf.quant.tensors import QTensor

MAGIC = b"PGOLF\r\n\0"
VERSION = 1
HEADER = struct.Struct(
    "<8sHIII"
)  # magic, version, bytes of the index packed and unpacked, its crc32; then the header's crc32
CRC = struct.Struct("<I")
INDEX_LIMIT = 2**26
RAW_LIMIT = 2**33  # bytes of all tensors together, unpacked
DTYPES = {"int8": np.dtype("<i1"), "float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
COLUMNS = ("name", "section", "shape", "dtype", "bits", "codec", "offset", "length", "raw", "crc")
SCALE = ":scale"  # the row scales of an integer tensor are the stream of that name, right after its symbols


@dataclass(frozen=True)
class Stream:
    """One row of the index: `length` bytes at `offset` of the data, `raw` bytes when decoded. `bits` is 0 unless integers."""

    name: str
    section: str
    shape: tuple[int, ...]
    dtype: str
    bits: int
    codec: str
    offset: int
    length: int
    raw: int
    crc: int

    @property
    def tensor(self) -> str:
        """The tensor that the stream is a part of."""
        return self.name.partition(":")[0]


def pack(
    tensors: Mapping[str, QTensor | Tensor],
    meta: dict[str, Any],
    codec: Codec,
    sections: Mapping[str, str] | None = None,
) -> bytes:
    """The file's bytes; the same for the same inputs. `meta` is JSON-able; `sections` names tensors' groups for the table.

    Streams are encoded in parallel and kept as they are where encoding would not make them smaller.
    """
    parts = [part for name, tensor in tensors.items() for part in _parts(name, tensor)]
    with ThreadPoolExecutor() as pool:
        encoded = list(pool.map(lambda part: _encode(part[2], codec), parts))
    rows, offset = [], 0
    for (name, bits, array), (method, data) in zip(parts, encoded, strict=True):
        section = (sections or {}).get(name.partition(":")[0], array.dtype.name)
        kind = (section, array.shape, array.dtype.name, bits, method)
        rows.append(Stream(name, *kind, offset, len(data), array.nbytes, zlib.crc32(data)))
        offset += len(data)
    return _head(rows, meta) + b"".join(data for _, data in encoded)


def _parts(name: str, tensor: QTensor | Tensor) -> Iterator[tuple[str, int, np.ndarray]]:
    if isinstance(tensor, QTensor):
        yield name, tensor.bits, tensor.symbols.cpu().numpy()
        yield name + SCALE, 0, tensor.scale.cpu().numpy()
        for extra in tensor.extras:
            for stream, part in extra.named():
                yield from _parts(name + stream, part)
    else:
        array = tensor.detach().cpu().numpy()
        assert array.dtype.name in ("float16", "float32"), f"{name}: {array.dtype} is not stored"
        yield name, 0, array


def _encode(array: np.ndarray, codec: Codec) -> tuple[str, bytes]:
    raw = array.astype(DTYPES[array.dtype.name]).tobytes()
    columns = math.prod(array.shape[1:]) if array.ndim > 1 else array.size
    found = [(one.name, one.encode(raw, array.itemsize, columns)) for one in codec.candidates(len(raw))]
    return min([("stored", raw), *found], key=lambda pair: len(pair[1]))


def _head(rows: list[Stream], meta: dict[str, Any]) -> bytes:
    """Header and index. The index goes by columns: like beside like is what makes it small."""
    fields = [asdict(row) for row in rows]
    columns = {key: [row[key] for row in fields] for key in COLUMNS}
    text = json.dumps({"meta": meta, **columns}, separators=(",", ":"), allow_nan=False).encode()
    index = zlib.compress(text, 9)
    header = HEADER.pack(MAGIC, VERSION, len(index), len(text), zlib.crc32(index))
    return header + CRC.pack(zlib.crc32(header)) + index


def unpack(data: bytes) -> tuple[dict[str, QTensor | Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and `meta`. Raises ArtifactError, its message beginning with the field that is wrong."""
    rows, meta, start = read_index(data)
    arrays = {row.name: _array(row, data, start) for row in rows}
    bits = {row.name: row.bits for row in rows}
    tensors: dict[str, QTensor | Tensor] = {}
    for name, array in arrays.items():
        if bits[name]:
            tensors[name] = _joined(name, array, arrays.get(name + SCALE), bits[name])
        elif bits.get(name.removesuffix(SCALE), 0) == 0:
            tensors[name] = torch.from_numpy(array)
    for kind in family(Extra):
        kind.read(tensors)
    return tensors, meta


def read_index(data: bytes) -> tuple[list[Stream], dict[str, Any], int]:
    """The checked index, `meta`, and where the data begins. Nothing is decoded but the index."""
    start = HEADER.size + CRC.size
    if len(data) < start:
        raise ArtifactError(f"header: the file has {len(data)} bytes, a header has {start}")
    magic, version, packed, unpacked, crc = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ArtifactError("magic: this is not a pgolf artifact")
    if zlib.crc32(data[: HEADER.size]) != CRC.unpack_from(data, HEADER.size)[0]:
        raise ArtifactError("header: checksum differs, the file is damaged")
    if version != VERSION:
        raise ArtifactError(f"version: {version} is not known, this reader knows {VERSION}")
    if packed > len(data) - start or unpacked > INDEX_LIMIT:
        raise ArtifactError(f"index: {packed} bytes ({unpacked} unpacked) announced, {len(data) - start} are left")
    table = _index(data[start : start + packed], unpacked, crc)
    rows = _rows(table, len(data) - start - packed)
    return rows, table["meta"], start + packed


def _index(index: bytes, unpacked: int, crc: int) -> dict[str, Any]:
    if zlib.crc32(index) != crc:
        raise ArtifactError("index: checksum differs, the file is damaged or cut short")
    try:
        text = zlib.decompressobj().decompress(index, unpacked + 1)
        table = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as wrong:
        raise ArtifactError(f"index: cannot be read ({wrong})") from None
    if len(text) != unpacked:
        raise ArtifactError(f"index: {unpacked} bytes announced, {len(text)} found")
    if not isinstance(table, dict) or table.keys() != {"meta", *COLUMNS} or not isinstance(table["meta"], dict):
        raise ArtifactError(f"index: must be an object of meta and {', '.join(COLUMNS)}")
    if any(not isinstance(table[key], list) or len(table[key]) != len(table["name"]) for key in COLUMNS):
        raise ArtifactError("index: its columns must be lists of one length")
    return table


def _rows(table: dict[str, Any], size: int) -> list[Stream]:
    """The streams, which must tile the data without gap or overlap, in bounds before anything is allocated."""
    rows, offset, raw = [], 0, 0
    for values in zip(*(table[key] for key in COLUMNS), strict=True):
        row = _row(values)
        if row.offset != offset:
            raise ArtifactError(f"offset: {row.name} begins at {row.offset} instead of {offset}")
        offset, raw = offset + row.length, raw + row.raw
        if offset > size or raw > RAW_LIMIT:
            raise ArtifactError(f"length: {row.name} ends at byte {offset} of {size}, {raw} bytes unpacked so far")
        rows.append(row)
    if offset != size:
        raise ArtifactError(f"length: the index covers {offset} bytes, the file has {size}")
    if len({row.name for row in rows}) != len(rows):
        raise ArtifactError("name: a tensor is listed twice")
    return rows


def _row(values: tuple) -> Stream:
    """One row with every type and range checked."""
    named = dict(zip(COLUMNS, values, strict=True))
    for key in ("name", "section", "dtype", "codec"):
        if not isinstance(named[key], str):
            raise ArtifactError(f"{key}: {named[key]!r} is not a string")
    for key in ("bits", "offset", "length", "raw", "crc"):
        if type(named[key]) is not int or not 0 <= named[key] < 2**48:
            raise ArtifactError(f"{key}: {named[key]!r} of {named['name']} is not a size")
    shape = named["shape"]
    if not isinstance(shape, list) or len(shape) > 8 or any(type(n) is not int or not 0 <= n < 2**32 for n in shape):
        raise ArtifactError(f"shape: {shape!r} of {named['name']} is not a list of sizes")
    row = Stream(**(named | {"shape": tuple(shape)}))
    if row.dtype not in DTYPES or row.raw != math.prod(shape) * DTYPES[row.dtype].itemsize:
        raise ArtifactError(f"raw: {row.name}, {row.dtype} {shape}, does not unpack to {row.raw} bytes")
    if (row.dtype == "int8") != (2 <= row.bits <= 8) or (row.dtype != "int8" and row.bits):
        raise ArtifactError(f"bits: {row.bits} of {row.name} ({row.dtype}) are not possible")
    return row


def _array(row: Stream, data: bytes, start: int) -> np.ndarray:
    stored = data[start + row.offset : start + row.offset + row.length]
    if zlib.crc32(stored) != row.crc:
        raise ArtifactError(f"crc: the data of {row.name} are damaged")
    dtype = DTYPES[row.dtype]
    raw = decode(row.codec, stored, row.raw, dtype.itemsize)
    return np.frombuffer(bytearray(raw), dtype).astype(dtype.newbyteorder("="), copy=False).reshape(row.shape)


def _joined(name: str, symbols: np.ndarray, scale: np.ndarray | None, bits: int) -> QTensor:
    if scale is None or scale.dtype != np.float16 or symbols.ndim < 1 or scale.shape != symbols.shape[:1]:
        raise ArtifactError(f"scale: {name} needs one fp16 scale per row")
    return QTensor(torch.from_numpy(symbols), torch.from_numpy(scale), bits)
