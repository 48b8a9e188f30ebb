"""Documents out of the running interpreter's standard library: code without docstrings, docstrings, help topics.

A text goes into one document only: docstrings are cut out of the code they stand in, and a longer paragraph that an
earlier document already holds (a licence, a help topic inside another) is dropped from later ones. That is what lets
a split by document be a split of the text.
"""

import ast
import hashlib
import importlib
import inspect
import io
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

SPACE_MARK = "\u2581"  # SentencePiece's own sign for a space, so a text that holds it cannot be given back
PARAGRAPH_BYTES = 100  # shorter paragraphs may repeat: they are idiom ("Return self==value."), not text
SKIPPED_FOLDERS = {
    "__pycache__",
    "dist-packages",
    "idle_test",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
}
HAS_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Document:
    """One text, and the name it was found under: `kind` is code, docstrings, topic or builtin."""

    kind: str
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of its UTF-8 bytes."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass
class Dropped:
    """What was left out, counted: goes into the manifest."""

    not_representable: int = 0
    empty_or_equal: int = 0
    repeated_paragraphs: int = 0
    repeated_bytes: int = 0


@dataclass(frozen=True)
class Sources:
    """The bytes a corpus is made of, by path relative to the standard library, in path order."""

    modules: dict[str, bytes]
    topics: bytes
    builtin: tuple[str, ...] = field(default=tuple(sorted(sys.builtin_module_names)))


def read_sources(root: Path | None = None) -> Sources:
    """Read (not parse) every module of the standard library under `root` that is worth learning from."""
    root = root or Path(sysconfig.get_path("stdlib"))
    modules = {str(p.relative_to(root)): p.read_bytes() for p in _module_files(root)}
    topics = root / "pydoc_data" / "topics.py"
    wanted = {path: data for path, data in modules.items() if not _is_table(path, data)}
    return Sources(wanted, topics.read_bytes() if topics.exists() else b"")


def _module_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in SKIPPED_FOLDERS and not path.name.startswith("config-"):
            yield from _module_files(path)
        elif path.suffix == ".py" and not path.name.startswith("_sysconfigdata"):
            yield path


def _is_table(path: str, data: bytes) -> bool:
    """Character maps (encodings/cp1252.py and 70 more, 1 MB) are generated rows of hex, neither language nor code."""
    return path.startswith("encodings") and (b"decoding_table" in data or b"decoding_map" in data)


def documents(sources: Sources, progress: Callable[[float], None]) -> tuple[list[Document], Dropped]:
    """Every document of `sources`, no text in two of them, in the order of their sha256."""
    dropped, seen, kept = Dropped(), set(), {}
    total = len(sources.modules) + len(sources.builtin) + 1
    for i, group in enumerate(_groups(sources)):
        for document in group:
            text = _without_repeats(document.text, seen, dropped)
            _keep(Document(document.kind, document.name, text), kept, dropped)
        progress((i + 1) / total)
    return [kept[key] for key in sorted(kept)], dropped


def _groups(sources: Sources) -> Iterator[list[Document]]:
    yield topic_documents(sources.topics)
    for path, data in sources.modules.items():
        yield module_documents(path, data)
    for name in sources.builtin:
        yield builtin_documents(name)


def _keep(document: Document, kept: dict[str, Document], dropped: Dropped) -> None:
    try:
        key = document.sha256
    except UnicodeEncodeError:  # a lone surrogate: not text
        dropped.not_representable += 1
        return
    if SPACE_MARK in document.text or "\0" in document.text:
        dropped.not_representable += 1
    elif not document.text.strip() or key in kept:
        dropped.empty_or_equal += 1
    else:
        kept[key] = document


def _without_repeats(text: str, seen: set[int], dropped: Dropped) -> str:
    """`text` less the paragraphs (between empty lines) of at least PARAGRAPH_BYTES that are in `seen`; adds the rest."""
    kept = []
    for paragraph in text.split("\n\n"):
        normal = " ".join(paragraph.split())
        if len(normal) >= PARAGRAPH_BYTES:
            if normal in seen:
                dropped.repeated_paragraphs += 1
                dropped.repeated_bytes += len(paragraph)
                continue
            seen.add(normal)
        kept.append(paragraph)
    return "\n\n".join(kept)


def topic_documents(source: bytes) -> list[Document]:
    """The help topics (`pydoc_data.topics`): longest first, since some are sections of others."""
    if not source:
        return []
    tree = ast.parse(source)
    topics = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    return [Document("topic", n, t) for n, t in sorted(topics.items(), key=lambda item: (-len(item[1]), item[0]))]


def module_documents(path: str, data: bytes) -> list[Document]:
    """A module's code without its docstrings, and its docstrings."""
    text = _decoded(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        tree = ast.parse(text)
    found = list(_docstrings(tree, Path(path).with_suffix("").as_posix().replace("/", ".")))
    code = without_docstrings(text, [node for _, node in found])
    docs = "\n\n".join(f"{name}\n{inspect.cleandoc(node.value.value)}" for name, node in found)
    return [Document("code", path, code), Document("docstrings", path, docs)]


def _decoded(data: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding)


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, ast.Expr]]:
    """(qualified name, docstring statement) of `node` and everything defined in it, in source order."""
    if isinstance(node, HAS_DOCSTRING) and node.body and _is_docstring(node.body[0]):
        yield name, node.body[0]
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _docstrings(child, f"{name}.{child.name}" if isinstance(child, HAS_DOCSTRING) else name)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def without_docstrings(text: str, nodes: Iterable[ast.Expr]) -> str:
    """`text` without the statements `nodes`; lines that held nothing else go with them.

    >>> without_docstrings('def f():\n    "Say."\n    pass\n', ast.parse('def f():\n    "Say."\n    pass').body[0].body[:1])
    'def f():\n    pass\n'
    """
    lines = [line.encode() for line in io.StringIO(text, newline="")]
    for node in nodes:
        first, last = node.lineno - 1, node.end_lineno - 1
        rest = lines[first][: node.col_offset] + lines[last][node.end_col_offset :]
        lines[first : last + 1] = [rest if rest.strip() else b""] + [b""] * (last - first)
    return b"".join(lines).decode()


def builtin_documents(name: str) -> list[Document]:
    """The docstrings of a module written in C, which has no source to read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules about to be removed
        module = importlib.import_module(name)
    docs = "\n\n".join(f"{where}\n{inspect.cleandoc(doc)}" for where, doc in _members(module, name))
    return [Document("builtin", name, docs)]


def _members(owner: ModuleType | type, name: str) -> Iterator[tuple[str, str]]:
    for key, value in [("", owner), *sorted(vars(owner).items())]:
        where = f"{name}.{key}".rstrip(".")
        if isinstance(value, type) and key:
            if value.__module__ == owner.__name__:
                yield from _members(value, where)
        elif isinstance(doc := getattr(value, "__doc__", None), str) and (not key or callable(value)):
            yield where, doc
