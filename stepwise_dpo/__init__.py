"""Step-level preference optimisation: data, process rewards, losses, training and a workbench.

The names below are imported when they are first used, so that `import stepwise_dpo` costs no torch and no gradio.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwise_dpo.errors import ConfigError, DataError, ModelError, RunError, StepwiseDPOError
    from stepwise_dpo.learning.evaluation import evaluate_policy
    from stepwise_dpo.learning.loading import load_policy
    from stepwise_dpo.learning.losses import stepwise_loss
    from stepwise_dpo.learning.process_reward_trainer import ProcessRewardConfig, ProcessRewardTrainer
    from stepwise_dpo.learning.rewards import LLMRewardModel
    from stepwise_dpo.learning.trainer import StepwiseDPOConfig, StepwiseDPOTrainer
    from stepwise_dpo.preferences.formats import LabelledSolution, labelled_solutions, load_labelled_solutions
    from stepwise_dpo.preferences.pairs import PreferencePair, Step, load_pairs, save_pairs
    from stepwise_dpo.preferences.synthetic import generate_pairs
    from stepwise_dpo.runs.config import RunConfig
    from stepwise_dpo.runs.training import run

__version__ = "0.1.0"

_HOME = {
    "ConfigError": "errors",
    "DataError": "errors",
    "LLMRewardModel": "learning.rewards",
    "LabelledSolution": "preferences.formats",
    "ModelError": "errors",
    "PreferencePair": "preferences.pairs",
    "ProcessRewardConfig": "learning.process_reward_trainer",
    "ProcessRewardTrainer": "learning.process_reward_trainer",
    "RunConfig": "runs.config",
    "RunError": "errors",
    "Step": "preferences.pairs",
    "StepwiseDPOConfig": "learning.trainer",
    "StepwiseDPOError": "errors",
    "StepwiseDPOTrainer": "learning.trainer",
    "evaluate_policy": "learning.evaluation",
    "generate_pairs": "preferences.synthetic",
    "labelled_solutions": "preferences.formats",
    "load_labelled_solutions": "preferences.formats",
    "load_pairs": "preferences.pairs",
    "load_policy": "learning.loading",
    "run": "runs.training",
    "save_pairs": "preferences.pairs",
    "stepwise_loss": "learning.losses",
}

__all__ = [
    "ConfigError",
    "DataError",
    "LLMRewardModel",
    "LabelledSolution",
    "ModelError",
    "PreferencePair",
    "ProcessRewardConfig",
    "ProcessRewardTrainer",
    "RunConfig",
    "RunError",
    "Step",
    "StepwiseDPOConfig",
    "StepwiseDPOError",
    "StepwiseDPOTrainer",
    "evaluate_policy",
    "generate_pairs",
    "labelled_solutions",
    "load_labelled_solutions",
    "load_pairs",
    "load_policy",
    "run",
    "save_pairs",
    "stepwise_loss",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
