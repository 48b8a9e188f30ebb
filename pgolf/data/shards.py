"""Token shards in the challenge's format: 256 little-endian int32 (magic, version, count, zeros), then uint16 tokens.

Nothing is repaired or guessed: a file that is not exactly what its header says is refused by name.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pgolf.errors import UserError

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 1024
BLOCK = 1 << 24  # tokens looked at in one go
# A document in an index: its first token, its bytes as they are counted, the sha256 of its text.
ROW = np.dtype([("start", "<i8"), ("bytes", "<i8"), ("sha256", ">u8", (4,))])


def shard_bytes(tokens: np.ndarray) -> bytes:
    """The file that holds `tokens` (N,) uint16."""
    assert tokens.dtype == np.uint16, tokens.dtype
    return header(len(tokens)) + tokens.astype("<u2", copy=False).tobytes()


def header(count: int) -> bytes:
    """The HEADER_BYTES that precede `count` tokens."""
    words = np.zeros(HEADER_BYTES // 4, "<i4")
    words[:3] = MAGIC, VERSION, count
    return words.tobytes()


def hashes(rows: np.ndarray) -> list[bytes]:
    """The sha256 of each document of an index, (D,) of ROW. NumPy may have turned the bytes round on the way."""
    whole = rows["sha256"].astype(">u8").tobytes()
    return [whole[i : i + 32] for i in range(0, len(whole), 32)]


def open_shard(path: str | Path) -> np.ndarray:
    """The tokens of a shard, (N,) uint16, memory-mapped and read-only. Raises UserError naming the file and the fault."""
    count = checked_count(path)
    return np.memmap(path, "<u2", "r", HEADER_BYTES, (count,)).view(np.ndarray)


def checked_count(path: str | Path) -> int:
    """How many tokens a shard holds, once its header and its size agree."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError as error:
        raise UserError(f"shard {path}: cannot be read: {error.strerror}") from None
    if len(head) < HEADER_BYTES:
        raise UserError(f"shard {path}: {size} bytes, but the header alone is {HEADER_BYTES}")
    _check_header(path, *(int(x) for x in np.frombuffer(head, "<i4", 3)), body=size - HEADER_BYTES)
    return (size - HEADER_BYTES) // 2


def _check_header(path: Path, magic: int, version: int, count: int, body: int) -> None:
    if magic != MAGIC:
        raise UserError(f"shard {path}: begins with {magic}, not with {MAGIC}: this is not a token shard")
    if version != VERSION:
        raise UserError(f"shard {path}: format version {version}, only {VERSION} can be read")
    if body % 2:
        raise UserError(f"shard {path}: {body} bytes after the header, an odd number: tokens are 2 bytes each")
    if count * 2 != body or count < 1:
        raise UserError(
            f"shard {path}: the header promises {count:,} tokens, the file holds {body // 2:,}: cut short or overwritten"
        )


def max_token(tokens: np.ndarray) -> int:
    """The largest token, read a block at a time."""
    return max(int(tokens[i : i + BLOCK].max()) for i in range(0, len(tokens), BLOCK))


def sha256_of(path: str | Path) -> str:
    """Of a file's bytes, in hex. Raises UserError."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def verify_file(path: Path, sha256: str) -> None:
    """Raises UserError unless the file has this sha256."""
    found = sha256_of(path)
    if found != sha256:
        raise UserError(
            f"{path}: its sha256 is {found}, the manifest says {sha256}: it was changed since it was prepared"
        )


def read_whole(paths: Sequence[str], tokens: Sequence[int], sha256: Sequence[str]) -> np.ndarray:
    """All tokens of a split, in order, once every file has the hash and the count that were written down for it."""
    parts = []
    for path, count, digest in zip(paths, tokens, sha256, strict=True):
        shard = open_shard(path)
        if len(shard) != count:
            raise UserError(f"shard {path}: {len(shard):,} tokens, the manifest says {count:,}")
        verify_file(Path(path), digest)
        parts.append(shard)
    return np.concatenate(parts).astype(np.uint16, copy=False)
