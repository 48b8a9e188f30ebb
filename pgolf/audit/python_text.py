"""Python text of any version as a tree: by the running parser, by libcst's newer grammars, or else line by line.

libcst reads what the running Python is too old for; its tree is spelled in older words and parsed again, so that one scan
serves all. libcst's parser recurses without a limit, so deep text is kept from it and goes line by line."""

import ast
import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

STACK = 1 << 29  # bytes, of the thread in which libcst parses
TEXT = 1 << 20  # characters of a file that libcst is given
CHAIN = 1000  # operators of one statement
NESTING = 60  # brackets in brackets
WRONG = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
PIECES = re.compile(
    r"\"[^\"\n]*\"|'[^'\n]*'|#[^\n]*|[(\[{]|[)\]}]|\n|\b(?:not|await|lambda|else|elif|and|or|in|is|for|if)\b|[-+*/%@&|^~<>=.!]"
)


def parsed(text: str) -> ast.Module | None:
    """The tree, or None where no grammar reads the text."""
    try:
        return _old(text)
    except WRONG:
        return _newer(text) if len(text) <= TEXT and _shallow(text) else None


def _old(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of doubtful escapes and the like, in code that is not ours
        return ast.parse(text)


def _shallow(text: str) -> bool:
    """Whether no statement nests or chains so deeply that a recursive parser may not end."""
    nesting = chain = clauses = 0
    for piece in PIECES.findall(text):
        if piece == "\n":
            chain = chain if nesting else 0
        elif piece in "([{":
            nesting, chain = nesting + 1, chain + 1
        elif piece in ")]}":
            nesting, chain = max(0, nesting - 1), chain + 1
        elif piece[0] not in "\"'#":
            chain, clauses = chain + 1, clauses + (piece == "elif")
        if nesting > NESTING or chain > CHAIN or clauses > CHAIN:
            return False
    return max((len(found) for found in re.findall(r"(?m)^[ \t]+", text)), default=0) <= 400


def _newer(text: str) -> ast.Module | None:
    made: list[ast.Module] = []

    def work() -> None:
        import libcst

        try:
            made.append(_old(libcst.parse_module(text).visit(older(libcst)).code))
        except (*WRONG, libcst.ParserSyntaxError, libcst.CSTValidationError, TypeError, AttributeError):
            return

    _with_stack(work)
    return made[0] if made else None


def _with_stack(work: Callable[[], None]) -> None:
    before = threading.stack_size(STACK)
    try:
        thread = threading.Thread(target=work)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()


def older(libcst: Any) -> Any:
    """The rewriting of newer words: f- and t-strings become tuples of their values, a `type` statement an assignment; type
    parameters are dropped, and `except A, B` gets its brackets."""

    class Older(libcst.CSTTransformer):
        def leave_FormattedString(self, original_node: Any, updated_node: Any) -> Any:  # noqa: N802
            return self._values(updated_node)

        def leave_TemplatedString(self, original_node: Any, updated_node: Any) -> Any:  # noqa: N802
            return self._values(updated_node)

        def visit_ConcatenatedString(self, node: Any) -> bool:  # noqa: N802
            return False

        def leave_ConcatenatedString(self, original_node: Any, updated_node: Any) -> Any:  # noqa: N802
            pieces = [original_node.left]
            rest = original_node.right
            while isinstance(rest, libcst.ConcatenatedString):
                pieces, rest = [*pieces, rest.left], rest.right
            pieces.append(rest)
            if all(isinstance(piece, libcst.SimpleString) for piece in pieces):
                return original_node
            return self._tuple([piece.visit(self) for piece in pieces])

        def leave_FunctionDef(self, original_node: Any, updated_node: Any) -> Any:  # noqa: N802
            return updated_node.with_changes(type_parameters=None)

        def leave_ClassDef(self, original_node: Any, updated_node: Any) -> Any:  # noqa: N802
            return updated_node.with_changes(type_parameters=None)

        def leave_TypeAlias(self, original_node: Any, updated_node: Any) -> Any:  # noqa: N802
            return libcst.Assign([libcst.AssignTarget(updated_node.name)], updated_node.value)

        def leave_ExceptHandler(self, original_node: Any, updated_node: Any) -> Any:  # noqa: N802
            kind = updated_node.type
            if isinstance(kind, libcst.Tuple) and not kind.lpar:
                return updated_node.with_changes(
                    type=kind.with_changes(lpar=[libcst.LeftParen()], rpar=[libcst.RightParen()])
                )
            return updated_node

        def _values(self, node: Any) -> Any:
            parts = [p for p in node.parts if hasattr(p, "expression")]
            return self._tuple([p.expression for p in parts])

        def _tuple(self, values: list) -> Any:
            return libcst.Tuple(
                [libcst.Element(v, libcst.Comma()) for v in values], [libcst.LeftParen()], [libcst.RightParen()]
            )

    return Older()


def line_by_line(text: str) -> ast.Module:
    """The statements of a text that no grammar reads whole: each line that is one, at its place."""
    found: list[ast.stmt] = []
    for at, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not re.search(r"\bimport\b|\(", stripped) or len(stripped) > TEXT:
            continue
        for attempt in (stripped, f"{stripped} pass", stripped.partition(":")[2].strip()):
            try:
                body = _old(attempt).body
            except WRONG:
                continue
            found += [ast.increment_lineno(node, at - 1) for node in body]
            break
    return ast.Module(found, [])
