"""Shards that others published: what is in the folder, checked once and remembered.

Hashing 16 GB and looking at every token takes half a minute, so the findings are kept in the cache beside each file's size
and modification time, and are looked for again when those change. Evaluation hashes the validation files every time.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.data.base import Show
from pgolf.data.bytes import documents, load_tokenizer, prefix_sums, token_bytes
from pgolf.data.encode import transform_facts
from pgolf.data.manifest import FORMAT, MANIFEST, SIDECAR, SPLITS, Manifest, Shard
from pgolf.data.miscount import prove_or_explain
from pgolf.data.overlap import shared_documents
from pgolf.data.shards import checked_count, max_token, open_shard, sha256_of
from pgolf.data.tokenizer import check_tokenizer
from pgolf.errors import ConfigError, UserError
from pgolf.machine.hardware import cores

if TYPE_CHECKING:
    import numpy as np

    from pgolf.data import PublishedText

CROP = 2048  # published scores leave out the tail that does not fill a sequence of this length


def prepare(data: "PublishedText", show: Show) -> Manifest:
    """The manifest of the shards in `data.folder`, after every check that can be made here."""
    paths = require(data)
    known = _remembered(data)
    files = _inspected(paths, _uncounted(known) if known else {}, show)
    found = _manifest(data, sha256_of(data.local / data.tokenizer), files)
    if known and found == replace(known, files=_uncounted(known), dropped={}):
        return known
    found = _proven(found, data, show)
    _remember(found, data)
    return found


def opened(folder: Path, vocab_size: int, show: Show) -> Manifest:
    """The manifest of a folder that pgolf built, every file hashed."""
    show("checking files", 0.0)
    manifest = Manifest.open(folder / MANIFEST)
    check_tokenizer(folder / manifest.tokenizer["file"], vocab_size)
    manifest.verify(folder)
    return manifest


def require(data: "PublishedText") -> dict[Path, str]:
    """The shard files, if there are some of each split and a tokenizer that suits the configuration."""
    paths = shard_paths(data)
    check_tokenizer(data.local / data.tokenizer, data.vocab_size)
    return paths


def _manifest(data: "PublishedText", tokenizer_sha256: str, files: dict[str, Shard]) -> Manifest:
    tokenizer = {"file": data.tokenizer, "sha256": tokenizer_sha256, "vocab_size": data.vocab_size}
    rule = "sidecar" if data.sidecar else "decoded"
    stated = {"scored_tokens": data.scored_tokens, "scored_bytes": data.scored_bytes, "most_shared": data.most_shared}
    parameters = {key: list(value) if isinstance(value, tuple) else value for key, value in stated.items()}
    about = dict(documents=None, parameters=parameters, dropped={}, made_with={}, origin={"source": data.repository})
    return Manifest(FORMAT, data.name, tokenizer, transform_facts(data.transform), rule, files, **about)


def shard_paths(data: "PublishedText") -> dict[Path, str]:
    """Shard files and their split, in order; at most `train_shards` of the training ones. Files that count bytes may lie there
    under the name that pgolf gives them, or under the published one, which begins like a validation shard's."""
    found = {split: sorted(data.local.glob(f"fineweb_{split}_[0-9]*.bin")) for split in SPLITS}
    if data.sidecar:
        names = (data.sidecar, data.remote_sidecar)
        found[SIDECAR] = next(filter(None, (sorted(data.local.glob(f"{name}_[0-9]*.bin")) for name in names)), [])
    for split, paths in found.items():
        if not paths:
            name = data.sidecar if split == SIDECAR else f"fineweb_{split}"
            raise UserError(
                f"{data.local}: no {name}_*.bin there. Fetch the shards with `python -m pgolf.data {data.name}`,"
                " or say where they are with data.folder=..."
            )
    return {path: split for split in found for path in found[split][: data.train_shards if split == "train" else None]}


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


def _inspected(paths: dict[Path, str], known: dict[str, Shard], show: Show) -> dict[str, Shard]:
    files: dict[str, Shard] = {}
    with ThreadPoolExecutor(min(8, cores())) as pool:
        checks = {path.name: pool.submit(_inspect, path, split, known.get(path.name)) for path, split in paths.items()}
        for i, (name, check) in enumerate(checks.items()):
            files[name] = check.result()
            show("checking shards", (i + 1) / len(checks))
    return files


def _inspect(path: Path, split: str, known: Shard | None) -> Shard:
    checked_count(path)
    stat = path.stat()
    if known and known.split == split and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return known
    tokens = open_shard(path)
    return Shard(split, sha256_of(path), len(tokens), max_token(tokens), None, None, stat.st_size, stat.st_mtime_ns)


def _uncounted(manifest: Manifest) -> dict[str, Shard]:
    """The files as they are known before anybody counts bytes and documents."""
    return {name: replace(shard, bytes=None, documents=None) for name, shard in manifest.files.items()}


def _proven(manifest: Manifest, data: "PublishedText", show: Show) -> Manifest:
    """Bytes proven document by document, published totals compared, and the splits held against each other."""
    manifest.check(str(data.local))
    show("proving the bytes of the validation text", 0.0)
    text = data.corpus_of(manifest).validation
    ids, counts, bos = text.read(), text.byte_counts(), load_tokenizer(text.tokenizer).bos_id()
    size, count = prove_or_explain(ids, text.tokenizer, counts), len(documents(ids, bos))
    _check_scored(token_bytes(ids, counts), data)
    files = dict(manifest.files)
    for i, name in enumerate(manifest.of("val")):
        files[name] = replace(files[name], bytes=0 if i else size, documents=0 if i else count)
    splits = ([open_shard(data.local / name) for name in manifest.of(split)] for split in SPLITS)
    shared = shared_documents(*splits, bos, lambda done: show("comparing training with validation documents", done))
    if shared > data.most_shared:
        raise ConfigError(
            "data.most_shared",
            data.most_shared,
            f"{shared:,} training documents of {data.local} are validation documents too, of {count:,}: these shards were"
            " prepared wrongly (validation must be left out of training); fetch or build them again",
        )
    return replace(manifest, files=files, dropped={"shared_documents": shared})


def _check_scored(per_token: "np.ndarray", data: "PublishedText") -> None:
    """The published scores cover all tokens but the first, cropped to whole sequences: fewer than one is left over. Where their
    bytes are published too, they are these."""
    if data.scored_tokens is None:
        return
    tokens, sums = len(per_token), prefix_sums(per_token)
    covered = [
        (n, size) for n, size in zip(data.scored_tokens, data.scored_bytes, strict=True) if 0 < tokens - n <= CROP
    ]
    if not covered:
        known = " or ".join(f"{scored:,}" for scored in data.scored_tokens)
        raise UserError(
            f"{data.local}: the validation split has {tokens:,} tokens, but published scores of {data.name} cover {known}:"
            " it is cut short, or another export. Fetch it again, or set data.scored_tokens=null for a split of your own."
        )
    for scored, size in covered:
        if size and (counted := int(sums[scored + 1] - sums[1])) != size:
            raise UserError(
                f"{data.local}: {counted:,} bytes in the first {scored:,} targets, but published scores of {data.name} have"
                f" {size:,}: another tokenizer, or another sidecar"
            )
