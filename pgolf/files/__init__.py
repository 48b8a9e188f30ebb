"""Files that are whole or absent: JSON is read strictly, and everything is written beside its place and then renamed."""

import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from pgolf.errors import UserError


def read_json(path: Path) -> Any:
    """The value in `path`; a byte-order mark is tolerated, NaN and Infinity are not. UserError says what is wrong where."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except RecursionError:
        raise UserError(f"{path}: not JSON that can be read: nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def finite(value: Any) -> Any:
    """Plain values with null for NaN and infinities, which JSON lacks. finite({"a": [1.0, nan]}) == {"a": [1.0, None]}"""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_bytes(value: Any) -> bytes:
    """The one spelling of `value` that pgolf writes: indented, UTF-8, newline at the end, null for NaN."""
    return (json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON, whole or not at all."""
    write_bytes(path, json_bytes(value))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all: on any error the old file is still there and no other is left."""
    temporary = _beside(path)
    with _explained(path):
        try:
            with open(temporary, "xb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    """Make `path` a folder of exactly `files`, replacing what was there; on any error the old folder is still there."""
    temporary, old = _beside(path), _beside(path)
    with _explained(path):
        try:
            temporary.mkdir(parents=True)
            for name, data in files.items():
                write_bytes(temporary / name, data)
            _swap(temporary, path, old)
        finally:
            for leftover in (temporary, old):
                shutil.rmtree(leftover, ignore_errors=True)


def _swap(new: Path, path: Path, old: Path) -> None:
    """Put `new` at `path` and what was there at `old`. A folder cannot be renamed over another, so there are two steps."""
    if not path.exists():
        new.rename(path)
        return
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex}.tmp")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; what was there is unchanged") from error


def lookup(record: dict, dotted: str) -> Any:
    """The value at a dotted key, or None. lookup({"a": {"b": 1}}, "a.b") == 1"""
    value: Any = record
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
