"""`python -m pgolf.data look NAME`: what is in a data set: documents, tokens, bytes per token, lengths, split, hashes, samples.

NAME        stdlib or another option of the group data that is there, or a folder that was built
out=FILE    a page with plots as well
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pgolf.config.command import Result
from pgolf.config.places import beside_or_inside
from pgolf.config.schema import build, resolved
from pgolf.data import Corpus, Data
from pgolf.data.bytes import load_tokenizer
from pgolf.data.caseops import decode
from pgolf.data.manifest import MANIFEST, SPLITS, Manifest
from pgolf.data.shards import open_shard
from pgolf.errors import UserError
from pgolf.files import write_bytes
from pgolf.files.home import expanded

QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
SAMPLES, SAMPLE_CHARACTERS = 10, 160


@dataclass(frozen=True)
class Split:
    """One split: its shards, and where its documents start among all its tokens."""

    shards: list[np.ndarray]
    starts: np.ndarray

    @classmethod
    def open(cls, paths: Sequence[str], bos: int, index: np.ndarray | None) -> "Split":
        """The index says where documents start, where there is one; else BOS does."""
        shards = [open_shard(path) for path in paths]
        if index is not None:
            return cls(shards, np.append(index["start"], sum(map(len, shards))))
        first = np.cumsum([0, *map(len, shards)])
        found = [np.flatnonzero(shard == bos) + at for shard, at in zip(shards, first, strict=False)]
        return cls(shards, np.concatenate([*found, first[-1:]]))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document."""
        return np.diff(self.starts)

    def document(self, i: int, most: int) -> list[int]:
        """The first `most` tokens of document i."""
        start, end = int(self.starts[i]), min(int(self.starts[i + 1]), int(self.starts[i]) + most)
        taken, first = [], 0
        for shard in self.shards:
            taken += shard[max(start - first, 0) : max(end - first, 0)].tolist()
            first += len(shard)
        return taken


def main(args: Sequence[str]) -> Result:
    """The table, and the page that is asked for."""
    names = [word for word in args if not word.startswith("out=")]
    if len(names) != 1 or names[0].startswith("-"):
        raise UserError(f"usage: {__doc__}")
    seen, lengths = looked_at(corpus_of(names[0]))
    for out in (word.removeprefix("out=") for word in args if word.startswith("out=")):
        write_bytes(expanded(out), drawn(seen, lengths).encode())
    return Result("pgolf.data.look/1", seen, "\n".join(table(seen)))


def corpus_of(name: str) -> Corpus:
    """The corpus of a folder, or of an option of the group data. Raises UserError where there is none."""
    folder, option = expanded(name), beside_or_inside("conf") / "data" / f"{name}.yaml"
    if (folder / MANIFEST).exists():
        manifest = Manifest.open(folder / MANIFEST)
        return Corpus.of(manifest, folder, folder / manifest.tokenizer["file"], 1, 0)
    if not option.exists():
        there = ", ".join(sorted(path.stem for path in option.parent.glob("*.yaml")))
        raise UserError(f"{name}: neither a folder with a {MANIFEST} nor an option of data ({there})")
    from omegaconf import OmegaConf

    return build(resolved(OmegaConf.load(option)), Data, "data").prepare(lambda stage, done: None)


def looked_at(corpus: Corpus) -> tuple[dict, dict[str, np.ndarray]]:
    """Everything that is shown, as plain values, and the documents' lengths in tokens by split."""
    manifest, sp = corpus.manifest, load_tokenizer(corpus.training.tokenizer)
    splits = {}
    for name, paths in (("train", corpus.training.paths), ("val", corpus.validation.paths)):
        index = manifest.index(Path(paths[0]).parent, name) if manifest.documents else None
        splits[name] = Split.open(paths, sp.bos_id(), index)
    seen = {
        "name": manifest.name,
        "manifest_sha256": manifest.text_sha256(),
        "tokenizer": manifest.tokenizer,
        "transform": manifest.transform,
        "byte_rule": manifest.byte_rule,
        "origin": manifest.origin,
        "dropped": manifest.dropped,
        "files": {name: shard.sha256 for name, shard in manifest.files.items()},
        "splits": {name: counted(splits[name], manifest, name) for name in SPLITS},
        "samples": samples(splits["train"], sp, manifest.transform["name"]),
    }
    return seen, {name: split.lengths for name, split in splits.items()}


def counted(split: Split, manifest: Manifest, name: str) -> dict:
    """Documents, tokens, bytes and lengths of a split."""
    tokens, size, lengths = manifest.tokens(name), manifest.bytes(name), split.lengths
    return {
        "documents": len(lengths),
        "tokens": tokens,
        "bytes": size,
        "bytes_per_token": size and size / tokens,
        "tokens_per_document": {f"{q:g}": float(np.quantile(lengths, q)) for q in QUANTILES} if len(lengths) else {},
    }


def samples(split: Split, sp: object, transform: str) -> list[str]:
    """The beginnings of documents spread evenly over a split, as text."""
    chosen = np.unique(np.linspace(0, len(split.lengths) - 1, min(SAMPLES, len(split.lengths))).astype(int))
    texts = [sp.decode(split.document(i, SAMPLE_CHARACTERS)) for i in chosen.tolist()]
    return [without_end(text, transform)[:SAMPLE_CHARACTERS] for text in texts]


def without_end(text: str, transform: str) -> str:
    """Text as it was before the transform; one that was cut after a marker loses the marker."""
    return decode(text.rstrip("\ue001\ue002\ue003\ue004")) if transform == "caseops" else text


def table(seen: dict) -> list[str]:
    """`seen` for a terminal."""
    lines = [f"{seen['name']}  manifest {seen['manifest_sha256'][:16]}"]
    sha256 = seen["tokenizer"]["sha256"][:16]
    lines += [f"tokenizer  {seen['tokenizer']['vocab_size']:,} pieces  {sha256}  transform {seen['transform']['name']}"]
    lines += [
        f"bytes      by {seen['byte_rule']}",
        f"{'':10} {'documents':>12} {'tokens':>16} {'bytes':>16} {'bytes/token':>12}",
    ]
    for name, split in seen["splits"].items():
        size = f"{split['bytes']:>16,} {split['bytes_per_token']:>12.3f}" if split["bytes"] else f"{'-':>16} {'-':>12}"
        lines.append(f"{name:10} {split['documents']:>12,} {split['tokens']:>16,} {size}")
    lines.append(f"{'tokens per document':24}" + "".join(f"{f'{100 * q:g} %':>10}" for q in QUANTILES))
    for name, split in seen["splits"].items():
        lines.append(f"{name:24}" + "".join(f"{n:>10,.0f}" for n in split["tokens_per_document"].values()))
    lines += [f"{name}  {sha256}" for name, sha256 in seen["files"].items()]
    lines += [f"{key.replace('_', ' ')}: {count:,}" for key, count in seen["dropped"].items() if count]
    return [*lines, *(f"{i + 1:>3}  {text!r}" for i, text in enumerate(seen["samples"]))]


def drawn(seen: dict, lengths: dict[str, np.ndarray]) -> str:
    """One HTML page: counts, the distribution of lengths, samples, hashes."""
    from pgolf.report import charts, page  # draws with matplotlib, which takes a second to import

    columns = ["split", "documents", "tokens", "bytes", "bytes per token"]
    keys = ("documents", "tokens", "bytes", "bytes_per_token")
    rows = [[name, *(split[key] for key in keys)] for name, split in seen["splits"].items()]
    plots = [
        page.chart(charts.bars(doublings(n), "documents"), f"{name}: tokens of a document")
        for name, n in lengths.items()
    ]
    return page.page(
        f"data set {seen['name']}",
        [
            page.heading(seen["name"], f"bytes by {seen['byte_rule']}, transform {seen['transform']['name']}"),
            page.section("Splits", page.table(columns, rows)),
            page.section("Lengths", page.charts(plots)),
            page.section("Samples", *(page.code(text) for text in seen["samples"])),
            page.section("Files", page.table(["file", "sha256"], [list(pair) for pair in seen["files"].items()])),
        ],
    )


def doublings(lengths: np.ndarray) -> dict[str, float]:
    """How many lengths lie in each of [1, 2), [2, 4), [4, 8) …, from the first to the last that has any."""
    power, count = np.unique(np.floor(np.log2(np.maximum(lengths, 1))).astype(int), return_counts=True)
    found = dict(zip(power.tolist(), count.tolist(), strict=True))
    return {f"{1 << p:,} to {(2 << p) - 1:,}": float(found.get(p, 0)) for p in range(min(found), max(found) + 1)}
