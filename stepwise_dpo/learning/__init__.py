"""What a reasoning step is worth, and what to minimise: models, process rewards, losses, the trainer."""
