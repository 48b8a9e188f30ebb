"""Programs inside programs: the long constants of a script, decoded and decompressed.

What a wrapper does with its constant is guessed from the constant alone, by trying to undo the usual encodings, each with a
bound on what may come out. Nothing is run."""

import ast
import base64
import binascii
import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator

import brotli
import zstandard

from pgolf.audit.python_text import line_by_line, parsed

LONG = 64  # characters from which a constant may hold a program
LIMIT = 1 << 24  # bytes that may come out of one layer
CANDIDATES = 12  # constants of a script that are tried
NESTED_LIMIT = 1 << 22  # bytes of a layer in which another is looked for
NESTED = 3  # encodings and compressions around one program
Undo = Callable[[bytes], bytes]


def payload(tree: ast.AST) -> str | None:
    """The program that one of a script's long constants holds, if one does: the longest first."""
    runs = any(isinstance(n, ast.Name) and n.id in ("exec", "eval") for n in ast.walk(tree))
    ways = [*UNDO, *map(_raw_lzma, _filters(tree)), *([_same] if runs else [])]
    found = (_opened(c, ways, NESTED) for c in sorted(constants(tree), key=len, reverse=True)[:CANDIDATES])
    return next((text for text in found if text is not None), None)


def constants(tree: ast.AST) -> Iterator[str | bytes]:
    """Long strings and bytes of a script, those it adds or joins from parts among them, and long lists of byte values."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            found = node.value
        elif isinstance(node, ast.BinOp | ast.List | ast.Tuple):
            found = _joined(node)
        else:
            continue
        if isinstance(found, str | bytes) and len(found) >= LONG:
            yield found


def _joined(node: ast.BinOp | ast.List | ast.Tuple) -> str | bytes | None:
    parts = []
    waiting: list[ast.AST] = [node] if isinstance(node, ast.BinOp) else list(reversed(node.elts))
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add):
            waiting += [part.right, part.left]
        elif isinstance(part, ast.Constant):
            parts.append(part.value)
        else:
            return None
    if len(parts) > 1 and all(isinstance(p, str) for p in parts):
        return "".join(parts)
    if len(parts) > 1 and all(isinstance(p, bytes) for p in parts):
        return b"".join(parts)
    if len(parts) >= LONG and all(type(p) is int and 0 <= p < 256 for p in parts):
        return bytes(parts)
    return None


def _opened(constant: str | bytes, ways: list[Undo], depth: int) -> str | None:
    """The first program that any chain of undoing gives."""
    for raw in _bytes_of(constant):
        for undo in ways:
            try:
                inner = undo(raw)
            except FAILS:
                continue
            text = _program(inner)
            if text is None and depth > 1 and undo is not _same and LONG <= len(inner) <= NESTED_LIMIT:
                text = _opened(inner, ways, depth - 1)
            if text is not None:
                return text
    return None


def _bytes_of(constant: str | bytes) -> Iterator[bytes]:
    data = constant.encode("utf-8", errors="replace") if isinstance(constant, str) else constant
    squeezed = b"".join(data.split())
    if squeezed.isascii():
        for decode in DECODE:
            try:
                yield decode(squeezed)
            except (ValueError, OverflowError):
                continue
    if isinstance(constant, str):
        try:
            yield constant.encode("latin-1")
        except UnicodeEncodeError:
            yield data
    else:
        yield data


def _program(raw: bytes) -> str | None:
    """`raw` as text, if it is Python that does more than state a value."""
    if not raw or 0 in raw[:256] or not any(word in raw for word in (b"import", b"def ", b"exec", b"print", b"=")):
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    body = (parsed(text) or line_by_line(text)).body
    return text if len(body) > 1 or (body and not isinstance(body[0], ast.Expr)) else None


def _same(raw: bytes) -> bytes:
    return raw


def _lzma(raw: bytes) -> bytes:
    return lzma.LZMADecompressor(memlimit=1 << 30).decompress(raw, LIMIT)


def _raw_lzma(filters: dict) -> Undo:
    return lambda raw: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[filters]).decompress(raw, LIMIT)


def _filters(tree: ast.AST) -> list[dict]:
    """Settings of raw LZMA that a script may mean: those that it states in dictionaries, then the usual ones."""
    stated = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            pairs = {k.value: v.value for k, v in zip(node.keys, node.values, strict=True) if _plain(k) and _plain(v)}
            stated.append(
                {k: v for k, v in pairs.items() if k in ("lc", "lp", "pb") and type(v) is int and 0 <= v <= 4}
            )
    usual = [
        {"lc": 3, "lp": 0, "pb": 2},
        {"lc": 4, "lp": 0, "pb": 0},
        {"lc": 3, "lp": 0, "pb": 0},
        {"lc": 0, "lp": 0, "pb": 0},
    ]
    kinds = (lzma.FILTER_LZMA2, lzma.FILTER_LZMA1)
    return [{"id": kind, "dict_size": 1 << 26} | s for s in [*filter(None, stated[:20]), *usual] for kind in kinds]


def _plain(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant)


def _brotli(raw: bytes) -> bytes:
    engine, parts, made = brotli.Decompressor(), [], 0
    while made < LIMIT and not engine.is_finished():
        part = engine.process(b"" if parts else raw, output_buffer_limit=LIMIT - made)
        if not part:
            raise EOFError
        parts.append(part)
        made += len(part)
    return b"".join(parts)


def _zstd(raw: bytes) -> bytes:
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw).read(LIMIT)


FAILS = (ValueError, EOFError, OSError, MemoryError, zlib.error, lzma.LZMAError, brotli.error, zstandard.ZstdError)
DECODE: tuple[Undo, ...] = (
    base64.b85decode,
    base64.a85decode,
    base64.b64decode,
    base64.urlsafe_b64decode,
    base64.b32decode,
    binascii.unhexlify,
)
UNDO: tuple[Undo, ...] = (
    lambda raw: zlib.decompressobj(47).decompress(raw, LIMIT),  # zlib or gzip, by its header
    _lzma,
    lambda raw: bz2.BZ2Decompressor().decompress(raw, LIMIT),
    _zstd,
    _brotli,
    lambda raw: zlib.decompressobj(-15).decompress(raw, LIMIT),
)
