"""Shards that others published: what is in the folder, checked once and remembered.

Hashing 16 GB and looking at every token takes half a minute, so the findings are kept in the cache beside each file's size
and modification time, and are looked for again when those change. Evaluation hashes the validation files every time.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pgolf.data.manifest import FORMAT, SPLITS, Manifest, Shard
from pgolf.data.shards import checked_count, max_token, open_shard, sha256_of
from pgolf.data.tokenizer import check_tokenizer
from pgolf.errors import UserError
from pgolf.eval.bytes import decoded, load_tokenizer

if TYPE_CHECKING:
    from pgolf.data import PublishedText

CROP = 2048  # published scores leave out the tail that does not fill a sequence of this length

Show = Callable[[str, float], None]


def prepare(data: "PublishedText", show: Show) -> Manifest:
    """The manifest of the shards in `data.folder`, after every check that can be made here."""
    paths = require(data)
    known = _remembered(data)
    files = _looked_at(paths, known.files if known else {}, show)
    found = _manifest(data, sha256_of(data.local / data.tokenizer), files)
    if found != known:
        found = _with_text_bytes(found, data, show)
        found.check(str(data.local))
        _remember(found, data)
    _check_scored(found, data)
    return found


def require(data: "PublishedText") -> dict[Path, str]:
    """The shard files, if there are some of each split and a tokenizer that suits the configuration."""
    paths = shard_paths(data)
    check_tokenizer(data.local / data.tokenizer, data.vocab_size)
    return paths


def _manifest(data: "PublishedText", tokenizer_sha256: str, files: dict[str, Shard]) -> Manifest:
    tokenizer = {"file": data.tokenizer, "sha256": tokenizer_sha256, "vocab_size": data.vocab_size}
    none = dict(documents=None, parameters={}, dropped={}, made_with={}, origin={"source": data.repository})
    return Manifest(FORMAT, data.name, tokenizer, {"name": "none", "sha256": None}, "decoded", files, **none)


def shard_paths(data: "PublishedText") -> dict[Path, str]:
    """Shard files and their split, in order; at most `train_shards` of the training ones."""
    found = {split: sorted(data.local.glob(f"fineweb_{split}_*.bin")) for split in SPLITS}
    for split, paths in found.items():
        if not paths:
            raise UserError(
                f"{data.local}: no fineweb_{split}_*.bin there. Fetch the shards with `python -m pgolf.data {data.name}`,"
                " or say where they are with data.folder=..."
            )
    return {path: split for split in SPLITS for path in found[split][: data.train_shards if split == "train" else None]}


def by_headers(data: "PublishedText") -> Manifest | None:
    """What the headers say, for a plan: hashes and bytes are left out. None when a split is missing."""
    try:
        paths = shard_paths(data)
    except UserError:
        return None
    files = {p.name: Shard(split, "", checked_count(p), 0, None, None, 0, None) for p, split in paths.items()}
    return _manifest(data, "", files)


def _memory(data: "PublishedText") -> Path:
    where = hashlib.sha256(str(data.local.resolve()).encode()).hexdigest()[:16]
    return data.cache_folder / f"{data.name}-{where}.json"


def _remember(found: Manifest, data: "PublishedText") -> None:
    try:
        data.cache_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.cache={data.cache}: cannot be made: {error.strerror}; name another folder") from None
    found.write(_memory(data))


def _remembered(data: "PublishedText") -> Manifest | None:
    """What was found out before. A memory that cannot be read is none: it is only a saving of time."""
    try:
        return Manifest.open(_memory(data))
    except UserError:
        return None


def _looked_at(paths: dict[Path, str], known: dict[str, Shard], show: Show) -> dict[str, Shard]:
    files: dict[str, Shard] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        looks = {path.name: pool.submit(_look, path, split, known.get(path.name)) for path, split in paths.items()}
        for i, (name, look) in enumerate(looks.items()):
            files[name] = look.result()
            show("checking shards", (i + 1) / len(looks))
    return files


def _look(path: Path, split: str, known: Shard | None) -> Shard:
    checked_count(path)
    stat = path.stat()
    if known and known.split == split and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return known
    tokens = open_shard(path)
    return Shard(split, sha256_of(path), len(tokens), max_token(tokens), None, None, stat.st_size, stat.st_mtime_ns)


def _with_text_bytes(manifest: Manifest, data: "PublishedText", show: Show) -> Manifest:
    """Count the validation text's bytes by decoding it, and its documents. They are the split's, kept with its first file.

    A document may run over from one file to the next, so files have no bytes of their own: the others say 0.
    """
    manifest.check_tokens()
    show("decoding validation text", 0.0)
    sp = load_tokenizer(data.local / data.tokenizer)
    names = list(manifest.of("val"))
    ids = np.concatenate([open_shard(data.local / name) for name in names])
    texts = [len(text) for _, _, text in decoded(ids, sp)]
    files = dict(manifest.files)
    for i, name in enumerate(names):
        files[name] = replace(files[name], bytes=0 if i else sum(texts), documents=0 if i else len(texts))
    show("decoding validation text", 1.0)
    return replace(manifest, files=files)


def _check_scored(manifest: Manifest, data: "PublishedText") -> None:
    """The published scores cover all tokens but the first, cropped to whole sequences: fewer than one is left over."""
    if data.scored_tokens is None:
        return
    tokens = manifest.tokens("val")
    if not any(0 < tokens - scored <= CROP for scored in data.scored_tokens):
        known = " or ".join(f"{scored:,}" for scored in data.scored_tokens)
        raise UserError(
            f"{data.local}: the validation split has {tokens:,} tokens, but published scores of {data.name} cover {known}:"
            " it is cut short, or another export. Fetch it again, or set data.scored_tokens=null for a split of your own."
        )
