"""What ranks run and what ships: training, sealing, judging, the artifact, the verdict, the lines of a log."""
