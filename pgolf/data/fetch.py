"""Fetches published shards from a Hugging Face dataset repository, resumably, one file at a time, each checked.

Files come down beside their place and are moved when whole; what is already here and sound is not fetched again.
"""

import logging
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

from pgolf.data.base import Show
from pgolf.data.shards import checked_count
from pgolf.errors import UserError, need
from pgolf.files import read_json

if TYPE_CHECKING:
    from pgolf.data import PublishedText

Download = Callable[[str, str, Path], Path]  # (repository, path in it, folder to use) -> the file
NETWORK = ("huggingface_hub", "httpx", "httpx2", "httpcore", "requests", "urllib3")  # their errors share no base class


class MissingError(Exception):
    """The repository answered, and has no such file."""


def hub_download(repository: str, path: str, folder: Path) -> Path:
    """One file through huggingface_hub, which resumes what it left unfinished in `folder`."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        _knock(constants.ENDPOINT)
        return Path(hf_hub_download(repository, path, repo_type="dataset", local_dir=folder))
    except LocalEntryNotFoundError as error:  # its way to say that the hub could not be asked
        raise _unreachable(repository, error) from error
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        raise MissingError(f"{repository} has no {path}") from error
    except Exception as error:
        if not (isinstance(error, OSError) or type(error).__module__.partition(".")[0] in NETWORK):
            raise
        raise _unreachable(repository, error) from error


def _knock(endpoint: str) -> None:
    """Notice at once that there is no connection, which the hub's client takes half a minute to admit."""
    address = urlsplit(endpoint)
    if address.scheme in getproxies():  # then it is the proxy that knows
        return
    port = address.port or (443 if address.scheme == "https" else 80)
    socket.create_connection((address.hostname, port), timeout=10).close()


def _unreachable(repository: str, error: Exception) -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(
        f"{repository} could not be reached on the Hugging Face hub: {reason}. Fetching needs a connection (HF_ENDPOINT"
        " names a mirror); what has come down is kept, and the same command goes on from there. Without one, copy the"
        " shards and the tokenizer into the folder yourself."
    )


def fetch(data: "PublishedText", download: Download, show: Show) -> None:
    """Bring tokenizer, validation shards and the first `train_shards` training shards into `data.local`."""
    parts = data.local / ".fetch"
    parts.mkdir(parents=True, exist_ok=True)
    stats = _remote_stats(data, download, parts)
    most = stats.get("files_train", data.train_shards)
    need(
        data.train_shards <= most,
        "train_shards",
        data.train_shards,
        f"at most {most}, which is all that {data.repository} has",
    )
    wanted = _wanted(data, stats.get("files_val", data.val_shards))
    for i, (name, remote) in enumerate(wanted.items()):
        show(name, i / len(wanted))
        _bring(data, download, parts, data.local / name, remote)
    _check_tokens(data, stats)
    shutil.rmtree(parts)
    show("all files are here", 1.0)


def _wanted(data: "PublishedText", val_shards: int) -> dict[str, str]:
    """Local name -> path in the repository."""
    folder = f"{data.root}/datasets/{data.dataset}"
    names = [f"fineweb_val_{i:06d}.bin" for i in range(val_shards)]
    names += [f"fineweb_train_{i:06d}.bin" for i in range(data.train_shards)]
    sidecar = {
        f"{data.sidecar}_{i:06d}.bin": f"{folder}/{data.remote_sidecar}_{i:06d}.bin"
        for i in range(val_shards if data.sidecar else 0)
    }
    return sidecar | {
        data.tokenizer: f"{data.root}/{data.remote_tokenizer}",
        **{name: f"{folder}/{name}" for name in names},
    }


def _remote_stats(data: "PublishedText", download: Download, parts: Path) -> dict:
    """What the repository's manifest says of this export (files_train, files_val, tokens_val …); {} if it has none."""
    try:
        manifest = read_json(download(data.repository, f"{data.root}/manifest.json", parts))
    except MissingError:
        return {}
    entries = [e for e in manifest.get("datasets", []) if e.get("name") == data.dataset]
    return (entries[0].get("stats") or {}) if entries else {}


def _bring(data: "PublishedText", download: Download, parts: Path, place: Path, remote: str) -> None:
    if place.exists() and _sound(place):
        return
    try:
        got = download(data.repository, remote, parts)
    except MissingError as missing:
        raise UserError(
            f"{missing}. What there is: https://huggingface.co/datasets/{data.repository}/tree/main"
        ) from None
    if got.suffix == ".bin":
        checked_count(got)
    place.parent.mkdir(parents=True, exist_ok=True)
    got.replace(place)


def _sound(place: Path) -> bool:
    try:
        return place.suffix != ".bin" or checked_count(place) > 0
    except UserError:
        return False


def _check_tokens(data: "PublishedText", stats: dict) -> None:
    stated = stats.get("tokens_val")
    found = sum(checked_count(path) for path in data.local.glob("fineweb_val_[0-9]*.bin"))
    if stated is not None and found != stated:
        raise UserError(
            f"{data.local}: {found:,} validation tokens, the manifest of {data.repository} says {stated:,};"
            " delete the fineweb_val_*.bin files and fetch them again"
        )
