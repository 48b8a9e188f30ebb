"""The dashboard shows what is logged, by the names of the schema, and can be printed without W&B."""

import json
from importlib.util import find_spec

import pytest

from pgolf.dashboard import main, sections, settings, spec, workspace
from pgolf.errors import UserError
from pgolf.logger.keys import EVENTS, SUMMARY
from tests import programs

HISTORY = {name for event in EVENTS.values() for name in event.values() if name}


def test_panels_show_what_is_logged():
    panels = [panel for group in sections().values() for panel in group]
    for panel in panels:
        assert panel.y in (HISTORY if panel.x else SUMMARY), panel
        assert panel.x is None or panel.x in HISTORY
    drawn = {name for name in HISTORY if "/" in name} - {"dev/artifact_bytes", "eval/val_loss"}
    assert drawn <= {panel.y for panel in panels}, "every curve has a panel"
    assert {(p.y, p.x) for p in panels} >= {("train/loss", "step"), ("train/loss", "seconds"), ("dev/bpb", "seconds")}


def test_the_spec_is_printed_offline(capsys):
    assert main(["spec"]) == 0
    assert json.loads(capsys.readouterr().out) == spec()
    assert main(["spec", "--json"]) == 0
    assert programs.said(capsys.readouterr().out, "pgolf.dashboard.spec", 0)["dashboard"] == spec()


def test_words_are_checked(capsys):
    assert settings(["entity=me"]) == {"entity": "me", "project": "pgolf"}
    assert main(["project=x"]) == 2
    assert "entity=NAME is missing" in capsys.readouterr().err
    assert main(["project=x", "--json"]) == 2
    assert "entity=NAME is missing" in programs.refused(capsys.readouterr().out, 2)
    with pytest.raises(UserError, match="must be entity=NAME"):
        settings(["entty=me"])


def test_without_a_key_it_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("pgolf.dashboard.has_key", lambda: False)
    assert main(["entity=me"]) == 2
    assert "there is no key for W&B" in capsys.readouterr().err


@pytest.mark.skipif(not find_spec("wandb_workspaces"), reason="the extra `dashboard` is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client's own, about its pydantic
def test_the_client_takes_it():
    made = workspace("me", "pgolf")._to_model().model_dump_json(by_alias=True)
    for section in spec()["sections"]:
        assert section["name"] in made
        assert all(panel["title"] in made for panel in section["panels"])
