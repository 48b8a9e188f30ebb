"""What the parent draws from the events of a run: console, log, progress. Nothing here ships."""
