"""Audits of run folders and of anybody's submission folders. `python -m pgolf.audit PATH`."""
