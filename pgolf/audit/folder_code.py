"""Checks of a shipped script: its wrapper is undone and its syntax tree searched for what the rules forbid. Nothing runs."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from pgolf.audit.finding import Finding
from pgolf.audit.python_text import line_by_line, parsed
from pgolf.audit.wrapper import payload

DEPTH = 6
CODE = "train_gpt.py"
NETWORK = {
    "requests", "urllib", "http", "httpx", "aiohttp", "ftplib", "smtplib", "telnetlib", "wget", "boto3", "paramiko",
    "huggingface_hub", "datasets", "gdown", "kagglehub", "websocket", "websockets", "xmlrpc",
}  # fmt: skip
LOCAL = {"urllib.parse", "urllib.error", "http.HTTPStatus"}
STARTS = {f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen", "getoutput")} | {
    "os.system",
    "os.popen",
}
REPORTS = re.compile(
    r"^\W*(?:/usr/bin/)?(?:nvidia-smi|nvcc|git|lscpu|uname|hostname|lspci|cat /proc|free|df|nproc|rocm-smi|ldd)\b"
)
INSTALLS = re.compile(
    r"\b(?:pip3?|uv|conda|apt(?:-get)?)\W{1,6}(?:pip\W{1,6})?install|\b(?:wget|curl|git\W{1,6}clone)\b"
)
FETCHES = {"urlopen", "urlretrieve", "hf_hub_download", "snapshot_download", "load_dataset", "load_state_dict_from_url"}
RUNS = ("exec", "eval", "marshal.loads", "pickle.loads", "dill.loads", "cloudpickle.loads")
FETCH_FIX = "fetch before the clocks, outside this file"
ONE_FILE = f"put all of the code into {CODE}"


@dataclass(frozen=True)
class Source:
    """Python text, and where it lies for a reader: the file, or the file after so many layers were taken off. `whole` says
    whether a grammar reads all of it; else `tree` holds the lines that can be read."""

    where: str
    text: str
    tree: ast.Module
    whole: bool

    def at(self, node: ast.AST) -> str:
        """`file:line` of a node."""
        return f"{self.where}:{getattr(node, 'lineno', 1)}"

    def line(self, node: ast.AST) -> str:
        """The source line of a node, short."""
        lines = self.text.split("\n")
        at = getattr(node, "lineno", 1) - 1
        return lines[at].strip()[:100] if at < len(lines) else ""


@dataclass(frozen=True)
class Code:
    """The file's bytes, every source found in it (the innermost last), and what is wrong with it as a file."""

    data: bytes
    sources: tuple[Source, ...]
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> set[int]:
        """Sizes by which this code may have been counted honestly: the file's, or a layer's, in bytes or in characters."""
        text = decoded(self.data)
        found = {len(self.data), len(text), len(text.replace("\r\n", "\n").encode("utf-8", "replace"))}
        for source in self.sources[1:]:
            found |= {len(source.text), len(source.text.encode("utf-8", "replace"))}
        return found | {n + d for n in found for d in (-1, 1)}


def read_code(data: bytes) -> Code:
    """All layers of a script."""
    sources = [_source(CODE, decoded(data))]
    while len(sources) < DEPTH and (inner := payload(sources[-1].tree)) is not None:
        sources.append(_source(f"{CODE} (unpacked {len(sources)}x)", inner))
    findings = [_unparsable(source) for source in sources if not source.whole]
    hidden = runs_unseen(sources[-1].tree)
    if hidden is not None:
        what = "runs code that the file does not show as text, and that no known compression gives back"
        fix = "ship the source, or a wrapper of lzma, zlib, bz2 or brotli around it"
        findings.append(Finding("mistake 22", "needs argument", sources[-1].at(hidden), what, fix))
    return Code(data, tuple(sources), tuple(findings))


def _source(where: str, text: str) -> Source:
    tree = parsed(text)
    return Source(where, text, tree or line_by_line(text), tree is not None)


def decoded(data: bytes) -> str:
    """The text as Python would read it: by its BOM or coding comment, else UTF-8."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError, ValueError):
        return data.decode("utf-8", errors="replace")


def _unparsable(source: Source) -> Finding:
    try:
        ast.parse(source.text)
        line, why = 1, "it nests too deeply"
    except SyntaxError as wrong:
        line, why = wrong.lineno or 1, wrong.msg
    except (ValueError, RecursionError, MemoryError) as wrong:
        line, why = 1, str(wrong) or "it nests too deeply"
    what = f"does not parse: {why}; only its single lines were looked through"
    return Finding("mistake 30", "fail", f"{source.where}:{line}", what, "ship the file that ran, unchanged")


def dotted(node: ast.AST) -> str:
    """The name of what is called. dotted of `a.b.c` is "a.b.c"; what is no chain of names begins with a dot."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))


def _inside(node: ast.Call) -> Iterator[ast.AST]:
    for argument in node.args:
        yield from ast.walk(argument)


def runs_unseen(tree: ast.AST) -> ast.AST | None:
    """An exec or eval of something that is not written there, or a program in another form than text. Weights that are
    unpickled from a file are none."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = dotted(node.func)
        if called not in RUNS:
            continue
        if called in ("exec", "eval") and not isinstance(node.args[0], ast.Constant) and not _opens(node):
            return node
        long = any(
            isinstance(n, ast.Constant) and isinstance(n.value, str | bytes) and len(n.value) >= 200
            for n in _inside(node)
        )
        if called == "marshal.loads" or (called.endswith(".loads") and long):
            return node
    return None


def _opens(node: ast.Call) -> bool:
    called = {dotted(n.func).rpartition(".")[2] for n in _inside(node) if isinstance(n, ast.Call)}
    return bool(called & {"open", "read_text", "read_bytes"})


def scan(code: Code, beside: set[str], files: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """What a script does that a record may not, or must explain; `beside` are the modules that lie in the same folder, `files`
    its files of code in other languages."""
    for source in code.sources:
        for node in ast.walk(source.tree):
            yield from _imports(source, node, beside)
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and node.value.rpartition("/")[2] in files
            ):
                yield _sibling(source, node, node.value)
            if isinstance(node, ast.Call):
                yield from _calls(source, node, beside)


def _imports(source: Source, node: ast.AST, beside: set[str]) -> Iterator[Finding]:
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom):
        names = [node.module] if node.module else [a.name for a in node.names]
    for name in names:
        first = name.partition(".")[0]
        if first in NETWORK and name not in LOCAL and first not in beside:
            what = f"imports {name}: evaluation must work with the network off"
            yield Finding("mistake 24", "needs argument", source.at(node), what, FETCH_FIX)
        if first in beside:
            yield _sibling(source, node, name)


def _sibling(source: Source, node: ast.AST, name: str) -> Finding:
    what = f"uses {name}, a file beside it whose bytes are not counted"
    return Finding("mistake 21", "fail", source.at(node), what, ONE_FILE)


def _calls(source: Source, node: ast.Call, beside: set[str]) -> Iterator[Finding]:
    called, at = dotted(node.func), source.at(node)
    last = called.rpartition(".")[2]
    if called == "exec" and _opens(node):
        what = f"executes another file ({source.line(node)}): what ran is not what is counted"
        yield Finding("mistake 22", "fail", at, what, ONE_FILE)
    if called in ("runpy.run_path", "runpy.run_module"):
        yield Finding("mistake 22", "fail", at, f"runs another file ({source.line(node)})", ONE_FILE)
    if last in ("import_module", "__import__", "spec_from_file_location"):
        named = {str(n.value).removesuffix(".py") for n in _inside(node) if isinstance(n, ast.Constant)}
        for name in sorted(named & beside):
            yield _sibling(source, node, name)
    if called in STARTS:
        yield from _program(node, at, source.line(node))
    if last in FETCHES or called.startswith("torch.hub."):
        yield Finding("mistake 24", "needs argument", at, f"downloads: {source.line(node)}", FETCH_FIX)


def _program(node: ast.Call, at: str, line: str) -> Iterator[Finding]:
    """A program that is started, unless it only tells about the machine."""
    text = " ".join(str(n.value) for n in _inside(node) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    if INSTALLS.search(text):
        yield Finding("mistake 24", "needs argument", at, f"installs or downloads: {line}", FETCH_FIX)
    elif not REPORTS.match(text):
        fix = "only public Python libraries are free; name the program and why it is none of the code"
        yield Finding("mistake 23", "needs argument", at, f"starts a program: {line}", fix)
