"""What a prepared data set states about itself: its files with hashes and counts, and what they were made from and with.

`documents` names a file per split with a row (`pgolf.data.shards.ROW`) per document, in order. From it follow the index of
starts and the proof that the splits share no document.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.errors import UserError
from pgolf.files import read_json, write_json

if TYPE_CHECKING:
    import numpy as np

MANIFEST, TOKENIZER = "manifest.json", "tokenizer.model"
FORMAT = 2
SPLITS = ("train", "val")
SIDECAR = "bytes"  # the `split` of files that count bytes per validation token
BLOCK_ROWS = 1 << 20


@dataclass(frozen=True)
class Shard:
    """One file of a split. `bytes` are of the text as it is counted, `documents` how many begin (None where nobody counted).

    A document may run over from one file to the next: both are the split's, kept with its first file; the others say 0.
    """

    split: str
    sha256: str
    tokens: int
    max_token: int
    bytes: int | None
    documents: int | None
    size: int
    mtime_ns: int | None


@dataclass(frozen=True)
class Index:
    """The file with a row per document of a split."""

    file: str
    sha256: str
    count: int


@dataclass(frozen=True)
class Manifest:
    """Everything a data set states about itself. `byte_rule` says how bytes are counted (see `pgolf.data.encode`); `made_with`
    and `parameters` are all that decided the files, `origin` is where the documents come from, as whoever built it said."""

    format: int
    name: str
    tokenizer: dict
    transform: dict
    byte_rule: str
    files: dict[str, Shard]
    documents: dict[str, Index] | None
    parameters: dict
    dropped: dict
    made_with: dict
    origin: dict

    @classmethod
    def open(cls, path: Path) -> "Manifest":
        """Read and check: the format, both splits, tokens inside the vocabulary."""
        stated = read_json(path)
        try:
            if (found := stated.get("format")) != FORMAT:
                raise UserError(
                    f"manifest {path}: format {found!r}, this pgolf reads {FORMAT}; delete it to have it made anew"
                )
            files = {name: Shard(**shard) for name, shard in stated.pop("files").items()}
            indices = stated.pop("documents")
            documents = indices and {split: Index(**index) for split, index in indices.items()}
            manifest = cls(files=files, documents=documents, **stated)
        except (KeyError, TypeError, AttributeError) as wrong:
            raise UserError(
                f"manifest {path}: not a pgolf data manifest ({wrong}); delete it to have it made anew"
            ) from None
        manifest.check(str(path))
        return manifest

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    def check(self, where: str) -> None:
        """Raises UserError unless there are both splits, inside the vocabulary."""
        for split in SPLITS:
            if not self.of(split):
                raise UserError(f"manifest {where}: no file of the {split} split")
        self.check_tokens()
        counted = sum(shard.tokens for shard in self.of(SIDECAR).values())
        if self.byte_rule == "sidecar" and counted != self.tokens("val"):
            raise UserError(
                f"manifest {where}: byte counts for {counted:,} tokens, but {self.tokens('val'):,} in the validation split"
            )

    def check_tokens(self) -> None:
        """Raises UserError for a shard with a token outside the vocabulary."""
        vocabulary = self.tokenizer["vocab_size"]
        for split in SPLITS:
            for name, shard in self.of(split).items():
                if shard.max_token >= vocabulary:
                    raise UserError(
                        f"shard {name}: token {shard.max_token} is outside the vocabulary of {vocabulary} pieces;"
                        " it was made with another tokenizer"
                    )

    def of(self, split: str) -> dict[str, Shard]:
        """The shards of a split, by file name."""
        return {name: shard for name, shard in self.files.items() if shard.split == split}

    def tokens(self, split: str) -> int:
        """Tokens of a split."""
        return sum(shard.tokens for shard in self.of(split).values())

    def bytes(self, split: str) -> int | None:
        """Bytes of the text of a split, or None where they were not counted."""
        counted = [shard.bytes for shard in self.of(split).values()]
        return None if None in counted else sum(counted)

    def documents_of(self, split: str) -> int | None:
        """How many documents a split has, or None where they were not counted."""
        counted = [shard.documents for shard in self.of(split).values()]
        return None if None in counted else sum(counted)

    def text_sha256(self) -> str:
        """Identity of the tokens: hash of the names and hashes of shards and tokenizer, wherever the files lie."""
        named = [f"{name} {shard.sha256}" for name, shard in sorted(self.files.items())]
        return hashlib.sha256("\n".join([self.tokenizer["sha256"], *named]).encode()).hexdigest()

    def verify(self, folder: Path) -> None:
        """Hash every file that is named, and prove the splits disjoint. Raises UserError for the first that disagrees."""
        from concurrent.futures import ThreadPoolExecutor

        from pgolf.data.shards import verify_file

        wanted = {self.tokenizer["file"]: self.tokenizer["sha256"]}
        wanted |= {name: shard.sha256 for name, shard in self.files.items()}
        wanted |= {index.file: index.sha256 for index in (self.documents or {}).values()}
        with ThreadPoolExecutor(8) as pool:
            for check in [pool.submit(verify_file, folder / name, digest) for name, digest in wanted.items()]:
                check.result()
        if self.documents and (both := shared_documents(*(self.index(folder, split) for split in SPLITS))):
            raise UserError(
                f"manifest {folder / MANIFEST}: {len(both)} documents are in training and validation, first {min(both)}"
            )

    def index(self, folder: Path, split: str) -> "np.ndarray":
        """A row per document, (D,) of ROW, memory-mapped. Raises UserError when the file is not as long as it is stated."""
        import numpy as np

        from pgolf.data.shards import ROW

        index = self.documents[split]
        path = folder / index.file
        size = path.stat().st_size if path.exists() else 0
        if size != index.count * ROW.itemsize:
            raise UserError(f"{path}: {size:,} bytes, but the manifest states {index.count:,} documents")
        return np.memmap(path, ROW, "r")


def shared_documents(train: "np.ndarray", val: "np.ndarray") -> list[str]:
    """The sha256 of the documents that two indices have in common, whatever the size of the first."""
    import numpy as np

    from pgolf.data.shards import hashes

    first, known, found = val["sha256"][:, 0], set(hashes(val)), set()
    for i in range(0, len(train), BLOCK_ROWS):
        rows = train[i : i + BLOCK_ROWS]
        found |= known.intersection(hashes(rows[np.isin(rows["sha256"][:, 0], first)]))
    return sorted(sha256.hex() for sha256 in found)
