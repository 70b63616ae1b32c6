"""What people see: a Gradio page over the package; building it imports neither torch nor transformers nor TRL."""
