"""Files that grow while a data set is built, and can be taken back to an earlier length: what a killed build had written after
its last note of progress is cut off, and written again."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pgolf.data.shards import header


@dataclass(frozen=True)
class Kind:
    """What a stream's files are: numbers of `dtype`, at most `limit` of them in a file, after `head` bytes of header."""

    suffix: str
    dtype: object
    head: int
    limit: int


class Stream:
    """Numbers, `total` of them so far, in files `stem`_000000, _000001 … of one kind."""

    def __init__(self, folder: Path, stem: str, kind: Kind, total: int):
        self.folder, self.stem, self.suffix, self.dtype = folder, stem, kind.suffix, np.dtype(kind.dtype)
        self.head, self.limit, self.total = kind.head, kind.limit, total
        self._open = None
        self._cut_back()

    def path(self, file: int) -> Path:
        """The file of this number."""
        return self.folder / f"{self.stem}_{file:06d}{self.suffix}"

    def paths(self) -> list[Path]:
        """The files there are, in order."""
        return [self.path(i) for i in range(-(-self.total // self.limit))]

    def _cut_back(self) -> None:
        for extra in set(self.folder.glob(f"{self.stem}_*{self.suffix}")) - set(self.paths()):
            extra.unlink()
        for i, path in enumerate(self.paths()):
            os.truncate(path, self.head + min(self.limit, self.total - i * self.limit) * self.dtype.itemsize)

    def append(self, numbers: np.ndarray) -> None:
        """Write numbers, beginning a new file every `limit` of them."""
        while len(numbers):
            file, used = divmod(self.total, self.limit)
            part, numbers = numbers[: self.limit - used], numbers[self.limit - used :]
            if used == 0:
                self.flush()
            if self._open is None:
                self._open = self.path(file).open("r+b" if used else "w+b")
                self._open.write(b"\0" * (0 if used else self.head))
                self._open.seek(0, os.SEEK_END)
            self._open.write(part.astype(self.dtype, copy=False).tobytes())
            self.total += len(part)

    def flush(self) -> None:
        """Everything on disk, for good."""
        if self._open is not None:
            self._open.flush()
            os.fsync(self._open.fileno())
            self._open.close()
            self._open = None

    def finish(self) -> list[Path]:
        """Write the headers, and name the files."""
        self.flush()
        for i, path in enumerate(self.paths() if self.head else ()):
            with path.open("r+b") as file:
                file.write(header(min(self.limit, self.total - i * self.limit)))
        return self.paths()
