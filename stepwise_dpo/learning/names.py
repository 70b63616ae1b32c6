"""Words that users choose from. Nothing heavy is imported here, so that the page and `--help` may use them."""

HUB_DEFAULT = "google/flan-t5-small"
"""The model of the training log, from the Hugging Face Hub."""

TINY = "tiny"
"""The built-in model, see `tiny`."""

LOSS_TYPES = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
)  # fmt: skip
"""What TRL 1.16 calls its losses."""
