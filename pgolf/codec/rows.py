"""A range coder with a model for every group of rows. Rows of a weight matrix differ in spread, columns differ more in some,
and rows of an embedding that training hardly touched resemble the row before them: so the rows (or columns) are sorted
into groups by their energy, each with a histogram of its own, and a row may be written as the change from the one before."""

import struct
from dataclasses import dataclass

import numpy as np

from pgolf.codec.ranged import PLANE, SIGN, joined, plane, read_plane
from pgolf.errors import ArtifactError

HEAD = struct.Struct("<IBB")  # columns, whether the matrix was turned, groups
GROUPS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Layout:
    """One way to write a matrix: turned or not, which rows are changes, and which group each belongs to."""

    symbols_rn: np.ndarray
    turned: bool
    changes_r: np.ndarray
    group_r: np.ndarray
    size: float
    """Predicted bytes."""


def encode(planes: bytes, itemsize: int, columns: int) -> bytes:
    """`planes` is byte-shuffled; each plane is a matrix of `columns`, or one row where it cannot be, and goes its own way.

    >>> decode(encode(b"abracadabra!", 1, 4), 99)
    b'abracadabra!'
    """
    matrices = np.frombuffer(planes, np.int8).reshape(itemsize, -1)
    return b"".join(_matrix(q, columns) for q in matrices) if matrices.size else b""


def _matrix(q: np.ndarray, columns: int) -> bytes:
    """The smallest of the layouts, by their entropies."""
    q_rn = q.reshape(-1, columns) if 0 < columns < 2**32 and q.size % columns == 0 else q[None]
    ways = [layout(q_rn, False, changed) for changed in (False, True)]
    best = min([*ways, layout(np.ascontiguousarray(q_rn.T), True, False)], key=lambda way: way.size)
    count = int(best.group_r.max()) + 1
    parts = [HEAD.pack(best.symbols_rn.shape[1], best.turned, count)]
    parts += [plane(tags.astype(np.uint8)) for tags in (best.changes_r, best.group_r)]
    unsigned_rn = best.symbols_rn.view(np.uint8) ^ SIGN
    parts += [plane(unsigned_rn[best.group_r == g].ravel()) for g in range(count)]
    return b"".join(parts)


def layout(q_rn: np.ndarray, turned: bool, changed: bool) -> Layout:
    """`q_rn` with the number of groups that pays, and, if `changed`, every row that is smaller so as a change."""
    changes_r = np.zeros(len(q_rn), bool)
    if changed and len(q_rn) > 1:
        step_rn = q_rn[1:].astype(np.int16) - q_rn[:-1]
        changes_r[1:] = _energy(step_rn) < _energy(q_rn[1:])
        q_rn = q_rn.copy()
        q_rn[1:][changes_r[1:]] = step_rn[changes_r[1:]].astype(np.int8)  # modulo 256
    finest = max(g for g in GROUPS if g <= len(q_rn))
    group_r = np.empty(len(q_rn), np.int64)
    group_r[np.argsort(_energy(q_rn), kind="stable")] = np.arange(len(q_rn)) * finest // len(q_rn)
    counts_gs = histograms(q_rn, group_r, finest)
    size, groups = min((_size(counts_gs, g, len(q_rn)), g) for g in GROUPS if g <= finest)
    return Layout(q_rn, turned, changes_r, group_r * groups // finest, size + _bits(np.bincount(changes_r)) / 8)


def _energy(q_rn: np.ndarray) -> np.ndarray:
    return np.einsum("rn,rn->r", q_rn, q_rn, dtype=np.int64, casting="safe")


def histograms(q_rn: np.ndarray, group_r: np.ndarray, groups: int) -> np.ndarray:
    """The histogram of every group of rows, (groups, 256)."""
    places_rn = (q_rn.view(np.uint8) ^ SIGN) + 256 * group_r[:, None].astype(np.uint16)
    return np.bincount(places_rn.ravel(), minlength=256 * groups).reshape(groups, 256)


def _size(counts_gs: np.ndarray, groups: int, rows: int) -> float:
    """Bytes of the symbols if neighbouring groups merge into `groups`, with tables and the rows' group numbers."""
    merged_gs = counts_gs.reshape(groups, -1, 256).sum(1)
    tables = groups * PLANE.size + np.count_nonzero(merged_gs)
    return sum(map(_bits, merged_gs)) / 8 + tables + rows * np.log2(groups) / 8


def _bits(counts: np.ndarray) -> float:
    """What an ideal coder pays for symbols with these counts."""
    some = counts[counts > 0]
    return float(-(some * np.log2(some / some.sum())).sum())


def decode(data: bytes, limit: int) -> bytes:
    """All matrices one after the other, at most `limit` bytes."""
    return joined(data, limit, _read_matrix)


def _read_matrix(data: bytes, place: int, limit: int) -> tuple[bytes, int]:
    if len(data) - place < HEAD.size:
        raise ArtifactError("data: row-coded data are cut off in their head")
    columns, turned, count = HEAD.unpack_from(data, place)
    changes, place = read_plane(data, place + HEAD.size, limit)
    groups, place = read_plane(data, place, limit)
    changes_r, group_r = (np.frombuffer(tags, np.uint8) ^ SIGN for tags in (changes, groups))
    if len(changes_r) != len(group_r) or len(group_r) * columns > limit or (group_r >= count).any():
        raise ArtifactError(f"data: {len(group_r)} rows of {columns} columns in {count} groups do not fit")
    q_rn = np.zeros((len(group_r), columns), np.uint8)
    for g in range(count):
        mine = group_r == g
        symbols, place = read_plane(data, place, int(mine.sum()) * columns)
        if len(symbols) != mine.sum() * columns:
            raise ArtifactError(f"data: group {g} has {len(symbols)} symbols for {mine.sum()} rows of {columns}")
        q_rn[mine] = np.frombuffer(symbols, np.uint8).reshape(-1, columns)
    for r in np.flatnonzero(changes_r[1:]) + 1:
        q_rn[r] += q_rn[r - 1]
    return (q_rn.T if turned else q_rn).tobytes(), place
