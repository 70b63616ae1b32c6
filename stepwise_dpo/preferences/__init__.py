"""What to learn from: preference pairs of reasoning steps, their file formats and a generator of labelled problems."""
