"""Fetching: the real huggingface_hub against a repository that the test serves on loopback, and against nothing."""

import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pgolf.data import InOrder, PublishedText
from pgolf.data.__main__ import main, option, overridden
from pgolf.data.fetch import MissingError, fetch
from pgolf.data.shards import checked_count, open_shard, shard_bytes
from pgolf.data.tokenizer import train
from pgolf.errors import ConfigError, UserError
from tests import programs
from tests.processes import PATIENCE

DATASET = "datasets/datasets/fineweb10B_sp1024"


@pytest.fixture(scope="session")
def model() -> bytes:
    words = "".join(f"{a}{b}{c} " for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst")
    return train([words * 5 + "".join(f"word{i} line {i * i}\n" for i in range(3000))], 1024)


@pytest.fixture
def remote(tmp_path, model) -> Path:
    """A repository folder in the published layout: 3 training shards, 1 validation shard."""
    root = tmp_path / "remote"
    (root / DATASET).mkdir(parents=True)
    (root / "datasets/tokenizers").mkdir()
    (root / "datasets/tokenizers/fineweb_1024_bpe.model").write_bytes(model)
    rng = np.random.default_rng(0)
    for name in ("train_000000", "train_000001", "train_000002", "val_000000"):
        ids = rng.integers(260, 1024, 4000).astype(np.uint16)
        (root / DATASET / f"fineweb_{name}.bin").write_bytes(shard_bytes(ids))
    stats = {"files_train": 3, "files_val": 1, "tokens_val": 4000}
    manifest = {"datasets": [{"name": "fineweb10B_sp1024", "tokenizer_name": "sp_bpe_1024", "stats": stats}]}
    (root / "datasets/manifest.json").write_text(json.dumps(manifest))
    return root


def wanted(folder: Path, **changes) -> PublishedText:
    fields = dict(
        name="fineweb_sp1024",
        vocab_size=1024,
        batch_tokens=256,
        sequence_length=64,
        dev_tokens=500,
        dev_checks=0,
        loader=InOrder(),
        cache=str(folder / "cache"),
        folder=str(folder / "local"),
        tokenizer="fineweb_1024_bpe.model",
        repository="a/b",
        root="datasets",
        dataset="fineweb10B_sp1024",
        remote_tokenizer="tokenizers/fineweb_1024_bpe.model",
        train_shards=2,
        val_shards=1,
        scored_tokens=(3968,),
        scored_bytes=(0,),
        sidecar=None,
        remote_sidecar=None,
        transform="none",
        most_shared=0,
    )
    return PublishedText(**{**fields, **changes})


class Copying:
    """Downloads by copying from a folder, and remembers what was asked for."""

    def __init__(self, root: Path):
        self.root, self.asked = root, []

    def __call__(self, repository: str, path: str, folder: Path) -> Path:
        self.asked.append(Path(path).name)
        if not (self.root / path).exists():
            raise MissingError(f"{repository} has no {path}")
        got = folder / path
        got.parent.mkdir(parents=True, exist_ok=True)
        got.write_bytes((self.root / path).read_bytes())
        return got


def quiet(what: str, done: float) -> None:
    pass


def test_fetched_and_usable(tmp_path, remote):
    data = wanted(tmp_path)
    fetch(data, Copying(remote), quiet)
    corpus = data.prepare(quiet)
    assert corpus.training.tokens == 8000
    assert sorted(p.name for p in data.local.iterdir()) == [
        "fineweb_1024_bpe.model",
        "fineweb_train_000000.bin",
        "fineweb_train_000001.bin",
        "fineweb_val_000000.bin",
    ]


def test_a_program_reads_what_was_fetched(tmp_path, remote, monkeypatch, capsys):
    monkeypatch.setattr("pgolf.data.__main__.option", lambda name: wanted(tmp_path))
    monkeypatch.setattr("pgolf.data.fetch.hub_download", Copying(remote))
    assert main(["fineweb_sp1024", "--json"]) == 0
    told = capsys.readouterr()
    value = programs.said(told.out, "pgolf.data.fetch", 0)
    assert (value["name"], value["train_tokens"], value["val_tokens"]) == ("fineweb_sp1024", 8000, 4000)
    assert value["use"] == ["data=fineweb_sp1024", f"data.folder={tmp_path}/local"]
    assert "all files are here" in told.err
    assert main(["fineweb_sp1024", "--quiet"]) == 0
    told = capsys.readouterr()
    assert (told.out.count("\n"), told.err) == (1, "")


def test_byte_counts_are_fetched_under_a_name_of_their_own(tmp_path, remote):
    published = remote / DATASET
    counts = shard_bytes(np.full(4000, 2, np.uint16))
    (published / "fineweb_val_bytes_000000.bin").write_bytes(counts)
    data = wanted(tmp_path, sidecar="fineweb_bytes", remote_sidecar="fineweb_val_bytes")
    fetch(data, Copying(remote), quiet)
    assert (data.local / "fineweb_bytes_000000.bin").read_bytes() == counts
    assert [p.name for p in data.local.glob("fineweb_val_*")] == ["fineweb_val_000000.bin"]


def test_only_what_is_missing_is_fetched_again(tmp_path, remote):
    data, again = wanted(tmp_path), Copying(remote)
    fetch(data, Copying(remote), quiet)
    (data.local / "fineweb_train_000001.bin").write_bytes(b"cut short")
    fetch(replace(data, train_shards=3), again, quiet)
    assert again.asked == ["manifest.json", "fineweb_train_000001.bin", "fineweb_train_000002.bin"]


def test_more_shards_than_there_are(tmp_path, remote):
    with pytest.raises(ConfigError, match=r"train_shards=9.*at most 3"):
        fetch(wanted(tmp_path, train_shards=9), Copying(remote), quiet)


def test_the_repositorys_manifest_is_believed_over_a_short_file(tmp_path, remote):
    (remote / DATASET / "fineweb_val_000000.bin").write_bytes(shard_bytes(np.full(3999, 300, np.uint16)))
    with pytest.raises(UserError, match="3,999 validation tokens, the manifest of a/b says 4,000"):
        fetch(wanted(tmp_path), Copying(remote), quiet)


def test_without_a_manifest_the_configuration_says_how_many(tmp_path, remote):
    (remote / "datasets/manifest.json").unlink()
    fetch(wanted(tmp_path), Copying(remote), quiet)
    (remote / DATASET / "fineweb_train_000002.bin").unlink()
    with pytest.raises(UserError, match=r"a/b has no datasets/datasets/fineweb10B_sp1024/fineweb_train_000002.bin"):
        fetch(wanted(tmp_path, train_shards=3), Copying(remote), quiet)


def test_a_spoilt_download_is_refused(tmp_path, remote):
    (remote / DATASET / "fineweb_train_000001.bin").write_bytes(b"<html>rate limit</html>" * 100)
    with pytest.raises(UserError, match="not a token shard"):
        fetch(wanted(tmp_path), Copying(remote), quiet)
    assert not (tmp_path / "local/fineweb_train_000001.bin").exists()


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs: /datasets/<repository>/resolve/<revision>/<path>, with ranges."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args, root: Path):
        self.root = root
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.root / self.path.split("/resolve/")[-1].partition("/")[2]
        data = path.read_bytes() if "/resolve/" in self.path and path.is_file() else b""
        self.send_response(200 if data else 404)
        if not data:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args) -> None:
        pass


def command(words: list[str], endpoint: str, folder: Path) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    env |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "hf"),
        "PGOLF_CACHE": str(folder / "cache"),
        "HF_HUB_DISABLE_XET": "1",
    }
    run = [sys.executable, "-m", "pgolf.data", *words]
    return subprocess.run(run, env=env, capture_output=True, text=True, timeout=PATIENCE)


def test_the_command_fetches_from_a_hub(tmp_path, remote):
    """The published constants refuse the toy split at the very end: everything before it is the real thing."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, root=remote))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    out = tmp_path / "out"
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        done = command(["fineweb_sp1024", "train_shards=2", f"out={out}"], endpoint, tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 2, done.stderr
    assert (
        "the validation split has 4,000 tokens, but published scores of fineweb_sp1024 cover 62,021,632" in done.stderr
    )
    assert "all files are here" in done.stdout
    assert checked_count(out / "fineweb_train_000001.bin") == 4000
    assert np.array_equal(
        open_shard(out / "fineweb_val_000000.bin"), open_shard(remote / DATASET / "fineweb_val_000000.bin")
    )
    assert not (out / ".fetch").exists()


def test_offline_is_one_clear_message(tmp_path):
    done = command(["fineweb_sp1024", "train_shards=1", f"out={tmp_path / 'out'}"], "http://127.0.0.1:9", tmp_path)
    assert done.returncode == 2
    assert "could not be reached on the Hugging Face hub" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "usage"),
        (["fineweb_sp1025"], "Did you mean 'fineweb_sp1024'"),
        (["stdlib"], "nothing to fetch"),
        (["fineweb_sp1024", "train_shard=8"], "Did you mean 'train_shards'"),
        (["fineweb_sp1024", "train_shards=many"], "must be train_shards=N"),
        (["fineweb_sp1024", "train_shards=0"], "at least 1"),
        (["fineweb_sp8192", "out="], "must be train_shards=N or out=DIR"),
    ],
)
def test_misuse(words, told, capsys):
    assert main(words) == 2
    assert told in capsys.readouterr().err
    assert main([*words, "--json"]) == 2
    assert told in programs.refused(capsys.readouterr().out, 2)


@pytest.mark.parametrize(
    ("name", "pieces", "scored"), [("fineweb_sp1024", 1024, 62_021_632), ("fineweb_sp8192", 8192, 40_540_160)]
)
def test_the_published_options(name, pieces, scored):
    data = overridden(option(name), ["train_shards=10", "out=here"])
    assert (data.vocab_size, data.train_shards, data.local.name) == (pieces, 10, "here")
    assert (data.batch_tokens, data.sequence_length) == (786_432, 2048)
    assert scored in data.scored_tokens
