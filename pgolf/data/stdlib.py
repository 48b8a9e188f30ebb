"""Builds the laptop corpus and keeps it: the standard library's documents, split by content hash, as tokens.

A cache folder is named after a hash of everything that went in. It appears by one rename, complete or not at all, so
builds may be killed or race. One whose files are not what its manifest says is built anew.
"""

import hashlib
import itertools
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from pgolf.data.corpus import FORMAT, Manifest, Shard
from pgolf.data.documents import Document, Dropped, Sources, documents, read_sources
from pgolf.errors import UserError

NAME = "stdlib"
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.model"
LEAST_BYTES = 1_000_000
STALE_SECONDS = 3600  # a temporary folder this old was left by a build that was killed
BUILDERS = ("corpus.py", "documents.py", "shards.py", "stdlib.py", "tokenizer.py")

Show = Callable[[str, float], None]


def prepare(cache: Path, parameters: dict, show: Show) -> Path:
    """The folder of the corpus for this interpreter and these parameters, built if it is not there or not sound."""
    sources = read_sources()
    folder = cache / f"{NAME}-{key(sources, parameters)}"
    if folder.exists():
        fault = flaw(folder)
        if fault is None:
            return folder
        show(f"building anew, {fault}", 0.0)
        _set_aside(folder)
    return _build(folder, sources, parameters, show)


def locate(cache: Path, parameters: dict) -> Path:
    """Where the corpus is, or would be."""
    return cache / f"{NAME}-{key(read_sources(), parameters)}"


def key(sources: Sources, parameters: dict) -> str:
    """A hash of all that decides the corpus: texts, interpreter, tokenizer trainer, parameters and this code."""
    digest = hashlib.sha256()
    builders = {f"builder {name}": Path(__file__).with_name(name).read_bytes() for name in BUILDERS}
    facts = repr((sys.version, sources.builtin, version("sentencepiece"), sorted(parameters.items())))
    for path, data in {**sources.modules, **builders, "topics": sources.topics, "facts": facts.encode()}.items():
        digest.update(f"{path}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def flaw(folder: Path) -> str | None:
    """What is wrong with a cached corpus, or None: every file is hashed (10 MB, a few hundredths of a second)."""
    from pgolf.data.shards import verify_file

    try:
        manifest = Manifest.open(folder / MANIFEST)
        verify_file(folder / TOKENIZER, manifest.tokenizer["sha256"])
        for name, shard in manifest.files.items():
            verify_file(folder / name, shard.sha256)
    except UserError as fault:
        return str(fault)
    return None


def _set_aside(folder: Path) -> None:
    aside = _temporary(folder)
    with suppress(FileNotFoundError):  # another process was quicker
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")


def _build(folder: Path, sources: Sources, parameters: dict, show: Show) -> Path:
    temporary = _temporary(folder)
    try:
        _remove_stale(folder.parent)
        temporary.mkdir(parents=True)
        _write(temporary, sources, parameters, show)
        _put_in_place(temporary, folder)
    except OSError as error:
        raise UserError(
            f"the corpus cannot be written to {folder.parent}: {error.strerror or error}."
            " Make room there, or name another folder with data.cache=... or PGOLF_CACHE."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _put_in_place(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if flaw(folder) is not None:  # otherwise another process has built the same meanwhile
            raise


def _remove_stale(cache: Path) -> None:
    for left in cache.glob(f".{NAME}-*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _write(folder: Path, sources: Sources, parameters: dict, show: Show) -> None:
    from pgolf.data import tokenizer

    found, dropped = documents(sources, lambda done: show("reading the standard library", done))
    total = sum(len(d.text.encode()) for d in found)
    if total < LEAST_BYTES:
        raise UserError(
            f"this interpreter's standard library has only {total:,} bytes of source and documentation (a stripped"
            f" installation?), at least {LEAST_BYTES:,} are needed; use another Python or data=fineweb_sp1024"
        )
    splits = split(found, parameters["val_fraction"])
    show("training the tokenizer", 0.0)
    model = tokenizer.train([d.text for d in splits["train"]], int(parameters["vocab_size"]))
    (folder / TOKENIZER).write_bytes(model)
    tokenizer.check_tokenizer(folder / TOKENIZER, int(parameters["vocab_size"]))
    encoded = tokenizer.encode(
        model, [d.text for d in found], lambda done: show("encoding, and decoding to compare", done)
    )
    tokens = dict(zip((d.sha256 for d in found), encoded, strict=True))
    files = dict(_write_shard(folder, name, part, tokens) for name, part in splits.items())
    manifest = _manifest(files, splits, model, parameters, dropped)
    manifest.check(NAME)
    manifest.write(folder / MANIFEST)
    show("done", 1.0)


def split(found: Sequence[Document], fraction: float) -> dict[str, list[Document]]:
    """Documents by content hash: validation is those with the smallest, until their bytes are nearest to `fraction`.

    Whether a document judges or teaches depends on nothing in it but its hash against one threshold. `found` is in the
    order of the hashes.
    """
    sizes = [len(d.text.encode()) for d in found]
    wanted, reached = fraction * sum(sizes), list(itertools.accumulate(sizes))
    count = 1 + min(range(len(found) - 1), key=lambda i: abs(reached[i] - wanted))
    return {"train": list(found[count:]), "val": list(found[:count])}


def _write_shard(folder: Path, name: str, part: Sequence[Document], tokens: dict[str, list[int]]) -> tuple[str, Shard]:
    import numpy as np

    from pgolf.data.shards import shard_bytes

    file = f"{NAME}_{name}_000000.bin"
    ids = np.fromiter(itertools.chain.from_iterable(tokens[d.sha256] for d in part), np.uint16)
    data = shard_bytes(ids)
    (folder / file).write_bytes(data)
    text = sum(len(d.text.encode()) for d in part)
    digest = hashlib.sha256(data).hexdigest()
    return file, Shard(name, digest, len(ids), int(ids.max()), text, len(part), len(data), None)


def _manifest(files: dict, splits: dict, model: bytes, parameters: dict, dropped: Dropped) -> Manifest:
    digest = hashlib.sha256(model).hexdigest()
    return Manifest(
        format=FORMAT,
        name=NAME,
        tokenizer={"file": TOKENIZER, "sha256": digest, "vocab_size": int(parameters["vocab_size"])},
        files=files,
        documents={name: [d.sha256 for d in part] for name, part in splits.items()},
        parameters=parameters,
        dropped=asdict(dropped),
        python=platform.python_version(),
    )
