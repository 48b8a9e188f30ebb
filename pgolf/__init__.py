"""pgolf: an experiment framework for parameter golf: composed from named parts by Hydra, run by one command."""

__version__ = "0.2.0"
