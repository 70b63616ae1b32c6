"""Words that users choose from. Nothing heavy is imported here, so that the page and `--help` may use them."""

from pathlib import Path

HUB_DEFAULT = "google/flan-t5-small"
"""The model of the training log, from the Hugging Face Hub."""

POLICY = "policy"
"""The bundled policy: a small T5 that solves some of the generated problems and fails others."""

REWARD = "reward"
"""The bundled process reward model."""

TINY = "tiny"
"""The built-in untrained model, see `tiny`."""

BUNDLED = (POLICY, REWARD)
"""Models that come with the project; a folder of the same name is asked for as "./policy"."""

DATA_DIR = Path(__file__).parents[2] / "data"
"""Where the bundled examples lie; only the whole project has it, `pip install .` leaves it out."""

MODELS_DIR = DATA_DIR / "models"
"""Where the bundled models lie."""

LOSS_TYPES = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
)  # fmt: skip
"""What TRL 1.16 calls its losses."""

SMOOTHED_LOSS_TYPES = ("exo_pair", "robust", "aot", "aot_unpaired")
"""Those of them that read `label_smoothing`."""
