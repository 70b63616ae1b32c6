"""What happened, kept on disk: configuration, run directory, training, worker, supervisor."""
