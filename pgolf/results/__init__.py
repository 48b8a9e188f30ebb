"""record.json and its views: the run folder, summaries, statistics, README. Nothing here ships."""
