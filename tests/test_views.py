"""The closing lines and the card: one set of rows, and the words that programs look for."""

from pathlib import Path

import pytest

from pgolf.audit.folder_log import read_log
from pgolf.stages.views import card, closing_lines
from tests.sweeps import SCRIPT, make_record


@pytest.fixture
def kept() -> dict:
    made = make_record(7, 1.6, "default", SCRIPT, b"weights")
    made["artifact"]["groups"] = {"attention": 300, "mlp": 200, "embedding": 90, "control": 8, "overhead": 2}
    made["receipts"] = [{"part": "ttt", "what": "moved", "value": 0.0, "alive": False}]
    return made


def test_the_card_tells_scores_bytes_clocks_receipts_and_verdict(kept):
    labels = [label for label, _ in card(kept)]
    assert labels == ["trained", "dev_bpb", "bytes", "of which", "evaluated", "val_bpb", "receipt", "verdict"]
    rows = dict(card(kept))
    for word in (
        "attention 300",
        "mlp 200",
        "embedding 90",
        "control 8",
        "overhead 2",
        f"code {len(SCRIPT)}",
        "of the cap",
    ):
        assert word in rows["of which"]
    assert "quantisation gap" in rows["dev_bpb"]
    assert rows["receipt"] == "ttt: moved = 0  DEAD"


def test_the_log_has_every_row_of_the_card_in_columns(kept):
    lines = closing_lines(kept)
    for label, text in card(kept):
        assert f"{label:<9} {text}" in lines
    assert len({line.index(text) for line, (_, text) in zip(lines, card(kept), strict=False)}) == 1


def test_an_audit_reads_the_closing_lines(kept, tmp_path: Path):
    (tmp_path / "train_seed7.log").write_text("\n".join(closing_lines(kept)) + "\n")
    (log,), judged = read_log(tmp_path / "train_seed7.log"), kept["evaluate"]
    assert (log.tokens[1], log.bytes[1]) == (judged["tokens"], judged["bytes"])
    assert (log.codes[0][1], log.models[0][1]) == (kept["code"]["bytes"], kept["artifact"]["bytes"])
    assert log.trained[1] == pytest.approx(kept["train"]["seconds"], abs=0.05)
    assert log.by_label()["val_bpb"].bpb == judged["val_bpb"]
