"""Data sets: fetch what others published, build one of your own, look at one.

python -m pgolf.data fineweb_sp1024 [train_shards=80] [out=DIR]
python -m pgolf.data build NAME docs=... [tokenizer=FILE | vocab_size=N] ...
python -m pgolf.data look NAME [out=PAGE.html]
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

from pgolf.config.command import Result, StatusLines, command
from pgolf.config.places import beside_or_inside
from pgolf.data import Data, PublishedText
from pgolf.errors import UserError, nearest
from pgolf.files.home import expanded


@command(__doc__)
def main(args: Sequence[str], say: StatusLines) -> Result:
    if args and args[0] == "build":
        from pgolf.data.make import main as build_main

        value, lines = build_main(args[1:], say)
        return Result("pgolf.data.build/1", value, "\n".join(lines))
    if args and args[0] == "look":
        from pgolf.report.look import main as look_main

        return look_main(args[1:])
    if not args or "=" in args[0] or args[0].startswith("-"):
        raise UserError(f"usage: {__doc__}To fetch, there are: {', '.join(options())}.")
    from pgolf.data.fetch import fetch, hub_download

    data = overridden(option(args[0]), args[1:])
    if data.built_here:
        raise UserError(f"{data.local} holds a data set that was built here; say out=... to fetch into another folder")
    say(f"{data.repository}: {data.dataset} -> {data.local}")

    def show(what: str, done: float) -> None:
        say(f"{done:4.0%}  {what}")

    fetch(data, hub_download, show)
    manifest = data.prepare(show).manifest
    train, val, size = manifest.tokens("train"), manifest.tokens("val"), manifest.bytes("val")
    use = [f"data={args[0]}", f"data.folder={data.local}"]
    value = {"name": data.name, "folder": str(data.local), "repository": data.repository, "use": use}
    text = f"{train:,} training and {val:,} validation tokens ({size:,} bytes of text). Use it with {' '.join(use)}"
    counts = {"train_tokens": train, "val_tokens": val, "val_bytes": size}
    return Result("pgolf.data.fetch/1", value | counts, f"{data.name}: {text}")


def options() -> list[str]:
    """The data options that can be fetched."""
    return [
        f.stem for f in sorted((beside_or_inside("conf") / "data").glob("*.yaml")) if "PublishedText" in f.read_text()
    ]


def option(name: str) -> PublishedText:
    from omegaconf import OmegaConf

    from pgolf.config.schema import build, resolved

    if name not in options():
        raise UserError(
            f"{name}: nothing to fetch by that name. There are: {', '.join(options())}.{nearest(name, options())}"
        )
    return build(resolved(OmegaConf.load(beside_or_inside("conf") / "data" / f"{name}.yaml")), Data, "data")


def overridden(data: PublishedText, args: Sequence[str]) -> PublishedText:
    for word in args:
        key, _, value = word.partition("=")
        if key == "out" and value:
            data = replace(data, folder=str(expanded(value)))
        elif key == "train_shards" and value.isdecimal():
            data = replace(data, train_shards=int(value))
        else:
            known = ["train_shards", "out"]
            raise UserError(
                f"{word!r}: must be train_shards=N or out=DIR.{nearest(key, known) if key not in known else ''}"
            )
    return data


if __name__ == "__main__":
    sys.exit(main())
