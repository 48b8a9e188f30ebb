"""CaseOps, bytes of tokens, documents packed into rows."""

from pathlib import Path

import numpy as np
import pytest

from pgolf.data import PackedDocuments, caseops
from pgolf.data.bytes import byte_table, decoded, load_tokenizer, token_bytes
from pgolf.data.packed import padded, piece_bounds
from pgolf.errors import UserError
from pgolf.schedule import MomentumRamp, Progress, Shape, WarmdownByFraction
from tests.goldens import Golden, Part, has


def check_caseops(golden: Golden) -> None:
    """The transform both ways, and what each token of the published tokenizer stands for in bytes of the original."""
    assert list(caseops.MARKERS) == [golden["markers"][k] for k in ("title", "all_caps", "capital_next", "escape")]
    for case in golden["cases"]:
        assert caseops.encode(case["text"]) == case["encoded"]
        assert caseops.decode(case["encoded"]) == case["text"]
        assert len(case["text"].encode()) == case["utf8_bytes"]
        assert bytes_by_span(case["encoded"].encode(), case["surfaces"]) == case["token_bytes"]
        assert sum(case["token_bytes"]) == case["counted_bytes"]
    for case in golden["decode"]:
        with pytest.raises(UserError, match=r"the marker U\+E00[1-4] at character \d+ stands where none may"):
            caseops.decode(case["encoded"])


def bytes_by_span(encoded: bytes, surfaces: list[str]) -> list[int]:
    """Bytes of the original under each span of transformed text; the spans leave out what is stripped at the two ends."""
    counted, at, found = caseops.weights(encoded), encoded.index("".join(surfaces).encode()), []
    for surface in surfaces:
        end = at + len(surface.encode())
        found.append(int(counted[at:end].sum()))
        at = end
    return found


def check_byte_table(golden: Golden) -> None:
    """By the tokenizers' own files, which are large: they are looked for in the folder, and in ../data beside it."""
    for name, kind in golden.items():
        path = tokenizer(golden.path.parent, name)
        sp, table = load_tokenizer(path), byte_table(path)
        assert (sp.vocab_size(), sp.bos_id(), sp.unk_id()) == (kind["vocab"], kind["bos"], kind["unk"])
        assert (int(table.base.sum()), int(table.leading_space.sum())) == (
            kind["base_bytes_sum"],
            kind["leading_space"],
        )
        assert int(table.boundary.sum()) == kind["boundary"]
        for case in kind["cases"]:
            ids = np.array([kind["bos"], *case["ids"]], np.uint16)
            assert int(token_bytes(ids, table)[1:].sum()) == case["table_bytes_after_bos"]
            (_, _, text), *rest = decoded(ids, sp, 0, 1)
            assert not rest
            assert (len(text), len(case["text"].encode())) == (case["decoded_bytes"], case["utf8_bytes"])


def tokenizer(folder: Path, name: str) -> Path:
    places = (folder / f"{name}.model", folder.parent / "data" / f"{name}.model")
    found = next((path for path in places if path.exists()), None)
    if found is None:
        pytest.skip(f"{name}.model is neither in {folder} nor in {places[1].parent}")
    return found


def check_pieces(golden: Golden) -> None:
    for case in golden["cu_seqlens"]:
        bounds = piece_bounds(np.array(case["bos"], int), case["total"], case["cut"])
        assert bounds.tolist() == case["cu_seqlens"]
        assert bounds.dtype == np.int32
        assert len(padded(bounds, case["padded_to"])) == case["entries"]
        assert max(np.diff(bounds)) == case["max_seqlen"]


def check_clock(golden: Golden) -> None:
    """The cut, the learning rate and the momentum of the record stack."""
    loader = PackedDocuments(
        cuts=(1024, 2048, 3072), until=(0.1, 0.7), rewarm_steps=32, row_sequences=1, shuffled=False
    )
    assert [loader.cut(fraction) for fraction, _ in golden["cut_at"]] == [cut for _, cut in golden["cut_at"]]
    warmdown = WarmdownByFraction(fraction=0.85, shape=Shape.LINEAR, floor=0.1)
    for fraction, multiplier in golden["lr_multiplier"]:
        assert warmdown.multiplier(Progress(0, fraction, 1.0)) == pytest.approx(multiplier, rel=1e-12)
    ramp = MomentumRamp(start=0.92, end=0.97, steps=1500)
    for step, momentum in golden["momentum"]:
        assert ramp.at(step) == pytest.approx(momentum, rel=1e-12)


PARTS = (
    Part("caseops", has("markers", "cases", "decode"), check_caseops),
    Part("byte table", lambda keys, name: "byte_table" in name, check_byte_table),
    Part("pieces", has("cu_seqlens"), check_pieces),
    Part("clock", has("cut_at", "lr_multiplier", "momentum"), check_clock),
    Part(
        "row order",
        has("similarity_order"),
        check_pieces,
        missing="the order of rows in the published container: the range coder needs none",
    ),
)
