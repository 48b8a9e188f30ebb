"""Shards, manifests, windows and the bad input they refuse; everything on corpora that the tests make."""

import itertools
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch

from pgolf.data import InOrder, Manifest, PublishedText
from pgolf.data.dev import Dev
from pgolf.data.manifest import Shard
from pgolf.data.shards import open_shard, read_whole, sha256_of, shard_bytes
from pgolf.data.tokenizer import check_tokenizer, train
from pgolf.errors import ConfigError, UserError
from pgolf.machine.world import World

TEXT = "".join(f"def step_{i}(x):\n    return x + {i}  # the {i}th\n\n\n" for i in range(300))


@pytest.fixture(scope="session")
def model() -> bytes:
    return train([TEXT], 512)


def published(folder: Path, model: bytes, **changes) -> PublishedText:
    """A folder in the published layout: 2 training shards, 1 validation shard, 512 pieces."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.model").write_bytes(model)
    rng = np.random.default_rng(0)
    for name, count in {"train_000000": 3000, "train_000001": 2000, "val_000000": 1500}.items():
        ids = rng.integers(260, 512, count).astype(np.uint16)
        ids[::100] = 1
        (folder / f"fineweb_{name}.bin").write_bytes(shard_bytes(ids))
    fields = dict(
        name="tiny",
        vocab_size=512,
        batch_tokens=64,
        sequence_length=16,
        dev_tokens=200,
        dev_checks=0,
        loader=InOrder(),
        cache=str(folder / "cache"),
        folder=str(folder),
        tokenizer="tiny.model",
        repository="a/b",
        root="datasets",
        dataset="tiny",
        remote_tokenizer="tokenizers/tiny.model",
        train_shards=2,
        val_shards=1,
        scored_tokens=None,
        scored_bytes=None,
        sidecar=None,
        remote_sidecar=None,
        transform="none",
        most_shared=0,
    )
    return PublishedText(**{**fields, **changes})


def quiet(stage: str, done: float) -> None:
    pass


def edit(path: Path, at: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


def test_shards_of_a_tokenizer_that_loses_text_are_refused_before_anything_is_trained(tmp_path):
    """Without byte pieces, what it does not know becomes its unknown piece, which no bytes can be counted for."""
    text, folder = tmp_path / "text.txt", tmp_path / "shards"
    text.write_text(TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "lossy"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=False,
        user_defined_symbols=["▁"],
        minloglevel=2,
    )
    lossy = tmp_path / "lossy.model"
    data = published(folder, lossy.read_bytes(), vocab_size=400)
    sp = sentencepiece.SentencePieceProcessor(model_file=str(lossy))
    ids = np.array(sp.encode(TEXT[:4000], add_bos=True) * 3, np.uint16)
    for path in folder.glob("*.bin"):
        path.write_bytes(shard_bytes(ids))
    with pytest.raises(UserError) as shared:  # the text itself is known to it, and so are both splits to each other
        data.prepare(quiet)
    assert "data.most_shared" in str(shared.value)
    (folder / "fineweb_val_000000.bin").write_bytes(shard_bytes(np.array(sp.encode("def ⅷ", add_bos=True), np.uint16)))
    with pytest.raises(UserError, match="An unknown or unused piece stands for text that is lost"):
        data.prepare(quiet)


def test_shard_round_trip(tmp_path):
    ids = np.arange(70000, dtype=np.uint32).astype(np.uint16)
    path = tmp_path / "a.bin"
    path.write_bytes(shard_bytes(ids))
    assert np.array_equal(open_shard(path), ids)
    head = np.frombuffer(path.read_bytes(), "<i4", 256)
    assert head[:3].tolist() == [20240520, 1, 70000]
    assert not head[3:].any()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda p: edit(p, 0, b"\1\2\3\4"), "not a token shard"),
        (lambda p: edit(p, 4, b"\2"), "format version 2"),
        (lambda p: edit(p, 8, b"\xff\0\0\0"), "promises 255 tokens, the file holds 3,000"),
        (lambda p: edit(p, 8, b"\xff\xff\xff\xff"), "cut short or overwritten"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "odd number"),
        (lambda p: p.write_bytes(p.read_bytes()[:-2]), "the file holds 2,999"),
        (lambda p: p.write_bytes(b"short"), "the header alone is 1024"),
        (lambda p: p.write_bytes(shard_bytes(np.zeros(0, np.uint16))), "promises 0 tokens"),
        (lambda p: edit(p, 1024, b"\xff\xff"), "token 65535 is outside the vocabulary of 512"),
        (lambda p: [q.unlink() for q in p.parent.glob("*_val_*")], "no fineweb_val_"),
        (lambda p: [q.unlink() for q in p.parent.glob("*_train_*")], "no fineweb_train_"),
        (lambda p: (p.parent / "tiny.model").unlink(), "no such file"),
        (lambda p: (p.parent / "tiny.model").write_bytes(b"nonsense"), "not a SentencePiece model"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, model, spoil, told):
    data = published(tmp_path, model)
    spoil(tmp_path / "fineweb_train_000000.bin")
    with pytest.raises(UserError, match=told) as refused:
        data.prepare(quiet)
    assert str(tmp_path) in str(refused.value) or "fineweb_train_000000.bin" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_vocabulary_must_be_the_tokenizers(tmp_path, model):
    with pytest.raises(ConfigError, match=r"data.vocab_size=1024.*512 pieces"):
        published(tmp_path, model, vocab_size=1024).prepare(quiet)


def test_tokenizer_without_space_piece_is_refused(tmp_path, model):
    path = tmp_path / "t.model"
    path.write_bytes(model.replace("▁".encode(), "▂".encode()))
    with pytest.raises(UserError, match="'▁' is not a piece"):
        check_tokenizer(path, 512)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"batch_tokens": 65}, "data.batch_tokens"),
        ({"vocab_size": 65537}, "data.vocab_size"),
        ({"sequence_length": 0}, "data.sequence_length"),
        ({"dev_tokens": 16}, "data.dev_tokens"),
        ({"train_shards": 0}, "data.train_shards"),
    ],
)
def test_numbers_out_of_range(tmp_path, model, changes, key):
    with pytest.raises(ConfigError, match=key):
        published(tmp_path, model, **changes)


@pytest.mark.parametrize(
    ("changes", "key"), [({"batch_tokens": 6400}, "batch_tokens"), ({"dev_tokens": 5000}, "dev_tokens")]
)
def test_too_few_tokens(tmp_path, model, changes, key):
    data = published(tmp_path, model, **changes)
    with pytest.raises(ConfigError, match=f"data.{key}"):
        data.prepare(quiet).training.check_enough(data.batch_tokens)


def test_published_constants(tmp_path, model):
    published(tmp_path, model, scored_tokens=(7, 1499), scored_bytes=(0, 0)).prepare(quiet)
    with pytest.raises(UserError, match="1,500 tokens, but published scores of tiny cover 9,999"):
        published(tmp_path, model, scored_tokens=(9999,), scored_bytes=(0,)).prepare(quiet)


def test_findings_are_remembered_until_a_file_changes(tmp_path, model):
    data, path = published(tmp_path, model), tmp_path / "fineweb_train_000001.bin"
    first = data.prepare(quiet)
    assert data.prepare(quiet).manifest == first.manifest
    edit(path, 1024, b"\x05\x01")
    changed = data.prepare(quiet).manifest
    assert changed.files[path.name].sha256 == sha256_of(path) != first.manifest.files[path.name].sha256
    (memory,) = (tmp_path / "cache").iterdir()
    memory.write_text("{}")
    assert data.prepare(quiet).manifest == changed


def test_plan_reads_headers_only(tmp_path, model):
    data = published(tmp_path, model)
    corpus = data.locate()
    assert (corpus.training.tokens, corpus.validation.tokens) == (5000, 1500)
    assert data.tokens_present() == 5000
    empty = replace(data, folder=str(tmp_path / "none"))
    assert empty.locate() is None
    assert empty.tokens_present() is None
    with pytest.raises(UserError, match=r"python -m pgolf\.data tiny"):
        empty.require()


def test_what_is_required_is_known_without_reading_tokens(tmp_path, model):
    data = published(tmp_path, model)
    assert data.require() == data.locate()
    with pytest.raises(ConfigError, match=r"data.vocab_size=1024.*512 pieces"):
        replace(data, vocab_size=1024).require()


def test_halves_travel_and_training_knows_no_validation_path(tmp_path, model):
    corpus = published(tmp_path, model).prepare(quiet)
    training, validation = pickle.loads(pickle.dumps((corpus.training, corpus.validation)))
    assert (training, validation) == (corpus.training, corpus.validation)
    assert b"fineweb_val" not in pickle.dumps(training)
    assert b"fineweb_train" not in pickle.dumps(validation)


def test_validation_is_read_whole_and_verified(tmp_path, model):
    text = published(tmp_path, model).prepare(quiet).validation
    ids = text.read()
    assert ids.dtype == np.uint16
    assert np.array_equal(ids, open_shard(tmp_path / "fineweb_val_000000.bin"))
    edit(Path(text.paths[0]), 1030, b"\x05\x01")
    with pytest.raises(UserError, match="its sha256 is"):
        text.read()
    with pytest.raises(UserError, match="the manifest says 7"):
        read_whole(text.paths, [7], text.sha256)


def test_validation_bytes_are_the_decoded_bytes(tmp_path, model):
    from pgolf.data.bytes import byte_table, prove

    text = published(tmp_path, model).prepare(quiet).validation
    assert text.bytes == prove(text.read(), text.tokenizer, byte_table(text.tokenizer))
    assert set(text.reference()) == {"xz -9e", "zstd -22"}


def test_dev_slice_may_span_shards(tmp_path, model):
    corpus = published(tmp_path, model, dev_tokens=2500).prepare(quiet)
    both = np.concatenate([open_shard(path) for path in corpus.training.paths])
    assert np.array_equal(corpus.training.dev(), both[-2500:])
    assert corpus.training.usable == (2500, 0)


def stated(tmp_path: Path, **changes) -> Path:
    shard = {name: Shard(name, "", 9, 3, 1, 1, 1, None) for name in ("train", "val")}
    whole = dict(
        format=2,
        name="n",
        tokenizer={"file": "t", "sha256": "", "vocab_size": 512},
        transform={"name": "none", "sha256": None},
        byte_rule="table",
        files=shard,
        documents=None,
        parameters={},
        dropped={},
        made_with={},
        origin={},
    )
    path = tmp_path / "manifest.json"
    Manifest(**{**whole, **changes}).write(path)
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": 1}, "format 1, this pgolf reads 2"),
        ({"files": {"t": Shard("train", "", 9, 3, 1, 1, 1, None)}}, "no file of the val split"),
        ({"byte_rule": "sidecar"}, "byte counts for 0 tokens, but 9 in the validation split"),
        ({"tokenizer": {"file": "t", "sha256": "", "vocab_size": 3}}, "token 3 is outside the vocabulary of 3"),
    ],
)
def test_manifest_is_checked_when_opened(tmp_path, changes, told):
    assert Manifest.open(stated(tmp_path)).tokens("train") == 9
    with pytest.raises(UserError, match=told):
        Manifest.open(stated(tmp_path, **changes))


def test_manifest_of_another_kind(tmp_path):
    (tmp_path / "m.json").write_text('{"format": 2, "files": {"a": {"split": "train"}}}')
    with pytest.raises(UserError, match="not a pgolf data manifest"):
        Manifest.open(tmp_path / "m.json")


class Uniform(torch.nn.Module):
    """A model that knows nothing: every token costs ln 512."""

    def nll(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.full(targets.shape, 512.0).log()


def test_dev_bpb_of_a_uniform_model(tmp_path, model):
    """9 bits a token over the targets' bytes, by decoding them: 12 windows of 16 of the 200 tokens."""
    from pgolf.data.bytes import load_tokenizer

    text = published(tmp_path, model).prepare(quiet).training
    sp = load_tokenizer(text.tokenizer)
    tokens = text.dev()[: 12 * 16 + 1].tolist()
    size = len(sp.decode([sp.piece_to_id("e"), *tokens]).encode()) - len(
        sp.decode([sp.piece_to_id("e"), tokens[0]]).encode()
    )
    bpb = Dev(text).bpb(Uniform(), World.alone(), 5)
    spaces = sum(sp.id_to_piece(b).startswith("▁") for a, b in itertools.pairwise(tokens) if a == 1)
    assert bpb == pytest.approx(9 * 12 * 16 / (size - spaces), rel=1e-6)


def test_corpus_section_is_plain(tmp_path, model):
    section = published(tmp_path, model).prepare(quiet).section()
    assert section["val_tokens"] == 1500
    assert section["train_tokens"] == 5000
    assert section["files"]["fineweb_val_000000.bin"] == sha256_of(tmp_path / "fineweb_val_000000.bin")


def test_components_import_nothing_slow():
    import subprocess
    import sys

    code = "import pgolf.data, sys; assert not {'torch', 'numpy', 'sentencepiece', 'omegaconf'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
