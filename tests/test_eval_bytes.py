"""Byte accounting: the table against the tokenizer's own decoding, on tokenizers trained here."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from pgolf.data.bytes import (
    MiscountError,
    byte_table,
    check_range,
    decoded,
    documents,
    load_tokenizer,
    prefix_sums,
    prove,
    text_of,
    token_bytes,
)
from pgolf.data.miscount import prove_or_explain
from pgolf.errors import UserError

CASES = [
    case["text"]
    for kind in json.loads((Path(__file__).parent / "data" / "byte_table.json").read_text()).values()
    for case in kind["cases"]
]
TEXTS = [*sorted(set(CASES)), "def f(x):\n    return x  # two  spaces\n", "    \n\n\t▁ itself, and     five"]
LOSSLESS = dict(normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["▁", "▁▁▁▁"])
KINDS = {
    "published": dict(normalization_rule_name="nmt_nfkc"),
    "lossless": LOSSLESS,
    "no_prefix": LOSSLESS | dict(add_dummy_prefix=False),
}


def train(folder: Path, **settings) -> Path:
    text = folder / "text.txt"
    text.write_text("\n".join(TEXTS * 5 + ["the cat sat on the mat and the dog ate the log " * 3] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "tokens"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        minloglevel=2,
        **settings,
    )
    return folder / "tokens.model"


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp(request.param), **KINDS[request.param])


def stream(path: Path, texts: list[str] = TEXTS) -> np.ndarray:
    sp = load_tokenizer(path)
    return np.array([i for text in texts for i in [sp.bos_id(), *sp.encode(text)]], np.uint16)


@pytest.mark.parametrize("text", TEXTS)
def test_table_bytes_after_bos_are_the_decoded_bytes(tokenizer, text):
    sp, table = load_tokenizer(tokenizer), byte_table(tokenizer)
    ids = stream(tokenizer, [text])
    assert token_bytes(ids, table).sum() == len(sp.decode(sp.encode(text)).encode())


def test_the_table_follows_the_rules_piece_by_piece(tokenizer):
    sp, table = load_tokenizer(tokenizer), byte_table(tokenizer)
    for i in range(sp.get_piece_size()):
        piece = sp.id_to_piece(i)
        nothing = sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i)
        assert table.boundary[i] == nothing
        if nothing or sp.is_byte(i):
            assert (table.base[i], table.leading_space[i]) == (0 if nothing else 1, False)
        else:
            rest = piece[1:] if piece[0] == "▁" else piece
            assert (table.base[i], table.leading_space[i]) == (len(rest.replace("▁", " ").encode()), piece[0] == "▁")


def test_prove_counts_the_whole_stream(tokenizer):
    ids, table = stream(tokenizer), byte_table(tokenizer)
    assert prove(ids, tokenizer, table) == len(text_of(ids, tokenizer)) == token_bytes(ids, table).sum()


def test_prove_streams_block_by_block(tokenizer, monkeypatch):
    monkeypatch.setattr("pgolf.data.bytes.BLOCK_TOKENS", 7)
    ids = stream(tokenizer)
    spans = [(a, b) for a, b, _ in decoded(ids, load_tokenizer(tokenizer))]
    assert spans == documents(ids, load_tokenizer(tokenizer).bos_id())
    assert prove(ids, tokenizer, byte_table(tokenizer)) == len(text_of(ids, tokenizer))


@pytest.mark.parametrize("size", [2, 3, 50])
def test_ranks_prove_a_share_each(tokenizer, size):
    ids, table = stream(tokenizer), byte_table(tokenizer)
    shares = [prove(ids, tokenizer, table, rank, size) for rank in range(size)]
    assert sum(shares) == prove(ids, tokenizer, table)
    twice = replace(table, base=(table.base + 3 * table.leading_space).astype(np.int16))
    refused = 0
    for rank in range(size):
        try:
            prove(ids, tokenizer, twice, rank, size)
        except UserError:
            refused += 1
    assert refused >= min(size, 2)


def test_prefix_sums_give_the_bytes_of_any_range(tokenizer):
    per_token = token_bytes(stream(tokenizer), byte_table(tokenizer))
    sums = prefix_sums(per_token)
    assert all(sums[b] - sums[a] == per_token[a:b].sum() for a in range(0, 60, 7) for b in range(a, 60, 5))


def test_documents_split_at_bos_and_keep_a_head_without_one():
    assert documents(np.array([1, 5, 1, 6, 7]), 1) == [(0, 2), (2, 5)]
    assert documents(np.array([5, 1, 6]), 1) == [(0, 1), (1, 3)]
    assert documents(np.array([], np.uint16), 1) == []


def test_a_tokenizer_without_the_space_piece_is_refused(tmp_path):
    path = train(tmp_path)
    path.write_bytes(path.read_bytes().replace("\n\x03▁".encode(), "\n\x03※".encode()))  # the lone ▁, respelled
    with pytest.raises(UserError, match=r"'▁' is not a piece of its own.*3 bytes instead of 1"):
        byte_table(path)


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.model: no such file"):
        byte_table(tmp_path / "nowhere.model")


def test_the_space_counted_twice_is_caught(tokenizer):
    table = byte_table(tokenizer)
    twice = replace(table, base=(table.base + 3 * table.leading_space).astype(np.int16))
    with pytest.raises(UserError, match=r"document at token \d+ .* position \d+.*The leading space is counted twice"):
        prove_or_explain(stream(tokenizer), tokenizer, twice)
    with pytest.raises(MiscountError, match=r"document at token \d+ has \d+ bytes by the table, decoding gives \d+$"):
        prove(stream(tokenizer), tokenizer, twice)


def test_a_byte_piece_counted_as_a_replacement_character_is_caught(tokenizer):
    sp, table = load_tokenizer(tokenizer), byte_table(tokenizer)
    byte = np.array([sp.is_byte(i) for i in range(table.vocabulary)])
    with pytest.raises(UserError, match="A byte piece is 1 byte, not 3"):
        prove_or_explain(
            stream(tokenizer), tokenizer, replace(table, base=np.where(byte, 3, table.base).astype(np.int16))
        )


def test_broken_utf8_is_caught(tokenizer):
    sp = load_tokenizer(tokenizer)
    ids = np.array([sp.bos_id(), sp.piece_to_id("<0xC3>"), *sp.encode("the cat")], np.uint16)
    with pytest.raises(UserError, match="not valid UTF-8"):
        prove_or_explain(ids, tokenizer, byte_table(tokenizer))


def test_an_unknown_piece_and_a_boundary_inside_a_document_are_caught(tokenizer):
    sp, table = load_tokenizer(tokenizer), byte_table(tokenizer)
    with pytest.raises(UserError, match="unknown or unused piece"):
        prove_or_explain(np.array([sp.bos_id(), *sp.encode("the"), sp.unk_id()], np.uint16), tokenizer, table)
    inside = np.array([sp.bos_id(), *sp.encode("the"), sp.eos_id(), *sp.encode("the")], np.uint16)
    if not table.keeps_first_space:
        with pytest.raises(UserError, match="disagree about the space after '</s>'"):
            prove_or_explain(inside, tokenizer, table)


def test_another_tokenizers_tokens_and_tables_are_refused(tokenizer):
    table = byte_table(tokenizer)
    with pytest.raises(UserError, match=r"token 400 at position 2 is outside the vocabulary of 400"):
        check_range(np.array([0, 399, 400, 500], np.uint16), table.vocabulary)
    smaller = replace(table, boundary=table.boundary[:300])
    with pytest.raises(UserError, match="another tokenizer"):
        prove(stream(tokenizer), tokenizer, smaller)


def test_compressors_are_measured_on_the_same_bytes():
    from pgolf.data.reference import compressors

    text = "".join(f"the cat number {i} sat on mat {i % 7}\n" for i in range(500)).encode()
    lines = compressors(text)
    assert list(lines) == ["xz -9e", "zstd -22"]
    assert all(0 < bpb < 3 for bpb in lines.values())
    assert compressors(text, limit=100) == compressors(text[:100])
    assert compressors(b"") == {"xz -9e": 0.0, "zstd -22": 0.0}
