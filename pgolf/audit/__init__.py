"""Audits: whether a run, or a submission folder of anybody's, can be believed. `python -m pgolf.audit PATH`."""
