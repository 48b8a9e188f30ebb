"""A tool that hits pgolf's commands at random moments, takes them up by the same words until they are done, and looks whether
anything was lost or left. `python -m tests.chaos kills=200`; docs/stopping.md says how it is used."""
