"""pgolf: compose a parameter-golf experiment from named parts, run it with one command, dispute nothing."""

__version__ = "0.2.0"
