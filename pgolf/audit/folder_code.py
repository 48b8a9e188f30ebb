"""A shipped script, read and never run: unwrapped through its layers of compression, and looked through for what may not be.

A wrapper holds its program as one long constant; what it does with it is guessed from the constant alone, by trying to
undo the usual encodings, each with a bound on what may come out.
"""

import ast
import base64
import binascii
import bz2
import io
import lzma
import tokenize
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pgolf.audit.finding import Finding
from pgolf.errors import UserError
from pgolf.export.code import unpack

LONG = 400  # characters from which a constant may hold a program
LIMIT = 1 << 25  # bytes that may come out of one layer
DEPTH = 6
CODE = "train_gpt.py"
NETWORK = {
    "requests", "urllib", "http", "httpx", "aiohttp", "socket", "ftplib", "smtplib", "telnetlib", "wget", "boto3",
    "paramiko", "huggingface_hub", "datasets", "gdown", "kagglehub", "websocket", "websockets", "xmlrpc",
}  # fmt: skip
STARTS = {f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen")} | {
    "os.system",
    "os.popen",
}
FETCHES = {"urlopen", "urlretrieve", "hf_hub_download", "snapshot_download", "load_dataset", "load_state_dict_from_url"}


@dataclass(frozen=True)
class Source:
    """Python text, and where it lies for a reader: the file, or the file after so many layers were taken off."""

    where: str
    text: str

    def at(self, node: ast.AST) -> str:
        return f"{self.where}:{getattr(node, 'lineno', 1)}"


@dataclass(frozen=True)
class Code:
    """The file's bytes, every source found in it (the innermost last), and what is wrong with it as a file."""

    data: bytes
    sources: tuple[Source, ...]
    findings: tuple[Finding, ...]


def read_code(data: bytes) -> Code:
    """All layers of a script."""
    try:
        ours = unpack(data)
    except UserError:
        return _layers(data)
    inside = [Source(f"{CODE} ({name})", text) for name, text in ours.modules.items()]
    return Code(data, tuple(inside), tuple(f for s in inside for f in _unparsable(s)))


def _layers(data: bytes) -> Code:
    sources: list[Source] = []
    findings: list[Finding] = []
    text, hidden = decoded(data), None
    for depth in range(DEPTH):
        source = Source(CODE if depth == 0 else f"{CODE} (unpacked {depth}x)", text)
        sources.append(source)
        found = list(_unparsable(source))
        if found:
            return Code(data, tuple(sources), (*findings, *found))
        tree = parsed(text)
        inner = payload(tree)
        if inner is None:
            hidden = runs_unseen(tree)
            break
        text = inner
    if hidden is not None:
        what = "runs code that the file does not show as text, and that no known compression gives back"
        fix = "ship the source, or a wrapper of lzma, zlib, bz2 or brotli around it"
        findings.append(Finding("mistake 22", "needs argument", sources[-1].at(hidden), what, fix))
    return Code(data, tuple(sources), tuple(findings))


def decoded(data: bytes) -> str:
    """The text as Python would read it: by its BOM or coding comment, else UTF-8."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError):
        return data.decode("utf-8", errors="replace")


def parsed(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of doubtful escapes and the like, in code that is not ours
        return ast.parse(text)


def _unparsable(source: Source) -> Iterator[Finding]:
    try:
        parsed(source.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as wrong:
        where = f"{source.where}:{getattr(wrong, 'lineno', None) or 1}"
        yield Finding("mistake 30", "fail", where, f"does not parse: {wrong}", "ship the file that ran, unchanged")


def payload(tree: ast.Module) -> str | None:
    """The program that a wrapper's longest constant holds, if it holds one."""
    constants = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str | bytes)]
    for constant in sorted((c for c in constants if len(c) >= LONG), key=len, reverse=True):
        for raw in _bytes_of(constant):
            for undo in UNDO:
                text = _program(undo, raw)
                if text is not None:
                    return text
    return None


def _bytes_of(constant: str | bytes) -> Iterator[bytes]:
    data = constant.encode("utf-8", errors="replace") if isinstance(constant, str) else constant
    for decode in (base64.b85decode, base64.a85decode, base64.b64decode, base64.b32decode, binascii.unhexlify):
        try:
            yield decode(b"".join(data.split()))
        except (ValueError, OverflowError):
            continue
    yield data
    if isinstance(constant, str):
        try:
            yield constant.encode("latin-1")
        except UnicodeEncodeError:
            return


def _program(undo: Callable[[bytes], bytes], raw: bytes) -> str | None:
    """What comes out, if it is Python that does more than state a value."""
    import brotli
    import zstandard

    try:
        text = undo(raw).decode("utf-8")
        body = parsed(text).body
    except (ValueError, SyntaxError, EOFError, OSError, MemoryError, RecursionError):
        return None
    except (zlib.error, lzma.LZMAError, brotli.error, zstandard.ZstdError):
        return None
    return text if len(body) > 1 or (body and not isinstance(body[0], ast.Expr)) else None


def _lzma(raw: bytes) -> bytes:
    return lzma.LZMADecompressor(memlimit=1 << 30).decompress(raw, LIMIT)


def _raw_lzma(lc: int, kind: int) -> Callable[[bytes], bytes]:
    filters = [{"id": kind, "dict_size": 1 << 26, "lc": lc, "lp": 0, "pb": 0 if lc == 4 else 2}]
    return lambda raw: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(raw, LIMIT)


def _brotli(raw: bytes) -> bytes:
    import brotli

    engine, parts, made = brotli.Decompressor(), [], 0
    while made < LIMIT and not engine.is_finished():
        part = engine.process(b"" if parts else raw, output_buffer_limit=LIMIT - made)
        if not part:
            raise EOFError
        parts.append(part)
        made += len(part)
    return b"".join(parts)


def _zstd(raw: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw).read(LIMIT)


UNDO: tuple[Callable[[bytes], bytes], ...] = (
    lambda raw: zlib.decompressobj(47).decompress(raw, LIMIT),  # zlib or gzip, by its header
    _lzma,
    lambda raw: bz2.BZ2Decompressor().decompress(raw, LIMIT),
    _zstd,
    _brotli,
    lambda raw: zlib.decompressobj(-15).decompress(raw, LIMIT),
    *(_raw_lzma(lc, kind) for lc in (3, 4) for kind in (lzma.FILTER_LZMA2, lzma.FILTER_LZMA1)),
    lambda raw: raw,
)


def runs_unseen(tree: ast.Module) -> ast.AST | None:
    """An exec or eval of something that is not written there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("exec", "eval"):
            plain = node.args and isinstance(node.args[0], ast.Constant)
            if not plain and not _opens(node):
                return node
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("marshal.loads", "pickle.loads") and node.args:
            return node
    return None


def _opens(node: ast.Call) -> bool:
    words = ("open(", ".read_text(", ".read_bytes(")
    return any(word in ast.unparse(argument) for argument in node.args for word in words)


def scan(code: Code, beside: set[str]) -> Iterator[Finding]:
    """What a script does that a record may not, or must explain; `beside` are the modules that lie in the same folder."""
    for source in code.sources:
        try:
            tree = parsed(source.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            yield from _imports(source, node, beside)
            if isinstance(node, ast.Call):
                yield from _calls(source, node)


def _imports(source: Source, node: ast.AST, beside: set[str]) -> Iterator[Finding]:
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        names = [node.module or ""]
    for name in names:
        first = name.partition(".")[0]
        if first in NETWORK and name not in ("urllib.parse",):
            what = f"imports {name}: evaluation must work with the network off"
            yield Finding(
                "mistake 24", "needs argument", source.at(node), what, "fetch before the clocks, outside this file"
            )
        if first in beside:
            what = f"imports {name}, a file beside it whose bytes are not counted"
            yield Finding("mistake 21", "fail", source.at(node), what, f"put all of the code into {CODE}")


def _calls(source: Source, node: ast.Call) -> Iterator[Finding]:
    called, at = ast.unparse(node.func), source.at(node)
    if called == "exec" and _opens(node):
        what = f"executes another file ({ast.unparse(node)[:80]}): what ran is not what is counted"
        yield Finding("mistake 22", "fail", at, what, f"put all of the code into {CODE}")
    if called in ("runpy.run_path", "runpy.run_module"):
        yield Finding(
            "mistake 22", "fail", at, f"runs another file ({ast.unparse(node)[:80]})", f"all code into {CODE}"
        )
    if called in STARTS:
        what = f"starts a program: {ast.unparse(node)[:100]}"
        fix = "only public Python libraries are free; name the program and why it is none of the code"
        yield Finding("mistake 23", "needs argument", at, what, fix)
    if called.rpartition(".")[2] in FETCHES or called.startswith("torch.hub."):
        yield Finding(
            "mistake 24", "needs argument", at, f"downloads: {ast.unparse(node)[:100]}", "fetch before the clocks"
        )
