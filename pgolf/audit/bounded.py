"""Files of a folder that may hold anything: listed and read within bounds, and never followed out of it.

Links, devices and pipes are not opened. A long file is read at both ends."""

import codecs
import os
import stat
from dataclasses import dataclass
from pathlib import Path

FILES = 4000  # entries of a folder that are looked at
DEPTH = 4  # folders below it
PART = 1 << 24  # bytes at each end of a file that are read
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Listing:
    """`files` of a folder, and the names of entries that are not opened (links, devices, pipes, too deep, too many)."""

    folder: Path
    files: tuple[Path, ...]
    refused: tuple[str, ...]

    def get(self, name: str) -> Path | None:
        """The file of this name at the folder's top."""
        return next((p for p in self.files if p == self.folder / name), None)


@dataclass(frozen=True)
class Text:
    """`lines` of a file, the number of the first line that is not text in `encoding`, and how many bytes were skipped."""

    lines: tuple[str, ...]
    encoding: str
    undecodable: int | None
    skipped: int


def listed(folder: Path) -> Listing:
    """Regular files of a folder, by name; git's own and caches left out."""
    files, refused, waiting = [], [], [(folder, 0)]
    while waiting:
        here, depth = waiting.pop()
        for entry in _entries(here):
            path = here / entry.name
            name = os.fspath(path.relative_to(folder))
            mode = entry.stat(follow_symlinks=False).st_mode
            if len(files) >= FILES:
                refused.append(name)
                return Listing(folder, tuple(sorted(files)), tuple(refused))
            if stat.S_ISREG(mode):
                files.append(path)
            elif stat.S_ISDIR(mode) and depth < DEPTH:
                waiting.append((path, depth + 1))
            else:
                refused.append(name)
    return Listing(folder, tuple(sorted(files)), tuple(sorted(refused)))


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as found:
            some = [e for e, _ in zip(found, range(FILES + 1), strict=False)]
    except OSError:
        return []
    return sorted((e for e in some if e.name not in (".git", "__pycache__")), key=lambda e: e.name)


def read(path: Path) -> tuple[bytes, int]:
    """A file's bytes, or both ends of a long one, and how many between them were skipped. Empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= 2 * PART:
                return file.read(2 * PART), 0
            head = file.read(PART)
            file.seek(size - PART)
            return head + b"\n" + file.read(PART), size - 2 * PART
    except OSError:
        return b"", 0


def text_of(path: Path) -> Text:
    """A file's lines, whatever its encoding: by its mark, as UTF-16 where every other byte is NUL, else as UTF-8."""
    data, skipped = read(path)
    encoding = next((name for bom, name in BOMS.items() if data.startswith(bom)), None)
    if encoding is None:
        odd, even = data[1:4096:2].count(0), data[0:4096:2].count(0)
        least = len(data[:4096]) // 8
        encoding = "utf-16-le" if odd > least > even else "utf-16-be" if even > least > odd else "utf-8"
    text = data.decode(encoding, errors="replace").replace("\0", "")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = tuple(text.removesuffix("\n").split("\n")) if text else ()
    bad = text.find("\ufffd")
    return Text(lines, encoding, text.count("\n", 0, bad) + 1 if bad >= 0 else None, skipped)


def plain(text: str) -> str:
    """`text` without what a terminal would obey. plain("a\\x1b[2J") == "a\\\\x1b[2J" """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
