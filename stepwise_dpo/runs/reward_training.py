"""train_reward_model(config, folder): load, check, measure, train, save, measure. The command line calls it.

The folder is an ordinary Transformers folder that `LLMRewardModel.from_pretrained` loads, and beside the model:

    metrics.jsonl    one line per optimiser step: {"global_step", "epoch", "loss", "step_accuracy", "grad_norm", …}
    report.json      {"settings", "data", "measured_on", "threshold": {…}, "before": {…}, "after": {…}}
"""

import json
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import is_torch_bf16_gpu_available

from stepwise_dpo.errors import ConfigError, DataError, RunError
from stepwise_dpo.learning.head_settings import HeadSettings, classifies_tokens
from stepwise_dpo.learning.loading import load_config, load_token_classifier, model_classes
from stepwise_dpo.learning.names import TINY
from stepwise_dpo.learning.process_metrics import tune_threshold
from stepwise_dpo.learning.process_reward_trainer import (
    EVEN_ODDS,
    ProcessRewardConfig,
    ProcessRewardTrainer,
    first_errors,
    has_labels,
    judge_figures,
    score_anew,
)
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.preferences.formats import LabelledSolution, load_labelled_solutions
from stepwise_dpo.preferences.statistics import prompt_key
from stepwise_dpo.runs.directory import RunDirectory, write_atomically
from stepwise_dpo.runs.progress import ProgressBar
from stepwise_dpo.runs.reward_config import RewardTrainingConfig

TUNING_SOLUTIONS = 2_000
"""So many training solutions, drawn at random, are enough to tune a threshold on; more would only cost time."""


def train_reward_model(config: RewardTrainingConfig, output_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Train a process reward model and save it.

    Args:
        config: what to do.
        output_dir: a folder that is empty or doesn't exist yet.

    Returns:
        what report.json holds. `before` and `after` are `judge_figures`, each at the threshold that was tuned on
        training solutions with the model of that time; `measured_on` is "held-out" or "training" data.

    Raises:
        ConfigError, DataError, ModelError: the settings, the data or the model are at fault.
        RunError: the folder holds something or can't be written, or the training diverged.
    """
    folder = _new_folder(output_dir)
    train, train_counts = _load(config.data)
    held_out, eval_counts = _load(config.eval_data) if config.eval_data else ([], None)
    if shared := {prompt_key(solution.prompt) for solution in train} & {prompt_key(one.prompt) for one in held_out}:
        _say(f"warning: {len(shared):,} prompts of {config.eval_data} are in {config.data} too, and no longer held out")

    _say("loading the model")
    set_seed(config.seed)  # before a new head's weights are drawn
    reward_model = _load_model(config)
    arguments = _training_arguments(config, folder)
    trainer = ProcessRewardTrainer(reward_model, arguments, train, held_out, callbacks=[_Journal(folder)])
    # Their place is taken by our journal: the one prints a dictionary per step, the other a second progress bar.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)

    tuning = random.Random(config.seed).sample(train, min(len(train), TUNING_SOLUTIONS))
    thresholds: dict[str, float] = {}

    def measure(when: str) -> dict[str, float]:
        _say(f"measuring {when} training")
        log_odds = score_anew(reward_model, tuning, ProgressBar("Training data", "row", leave=False))
        thresholds[when] = _tuned(tuning, log_odds)
        if held_out:
            log_odds = score_anew(reward_model, held_out, ProgressBar("Held-out data", "row", leave=False))
        return judge_figures(held_out or tuning, log_odds, thresholds[when])

    before = measure("before")
    _say("training")
    trainer.train()
    after = measure("after")
    _say("saving")
    # The report last: a folder without one is what an interruption left.
    trainer.save_model()
    report = {
        "settings": config.model_dump(),
        "data": {"train": train_counts, "eval": eval_counts},
        "measured_on": "held-out" if held_out else "training",
        "before": before,
        "after": after,
        "threshold": thresholds,
    }
    write_atomically(folder / "report.json", json.dumps(report, indent=1) + "\n")
    return report


def _new_folder(output_dir: str | os.PathLike[str]) -> Path:
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RunError(f"{str(folder)!r} already holds something; choose another output directory")
    except OSError as error:
        raise RunError(f"{str(folder)!r} can't be written: {error}") from error
    return folder


def _load(path: str) -> tuple[list[LabelledSolution], dict[str, int]]:
    """Read solutions that have labels, with the counts that say what they are."""
    solutions, repeated = load_labelled_solutions(path)
    labelled = [solution for solution in solutions if has_labels(solution)]
    labels = [label for solution in labelled for label in solution.labels]
    right, wrong = labels.count(True), labels.count(False)
    if not labelled:
        raise DataError(
            f"{path}: none of its {sum(len(solution.steps) for solution in solutions):,} steps has a label, so nothing "
            'can be learnt from it; a labelled step of a native pair is {"text": …, "label": true}'
        )
    _say(
        f"{path}: {len(labelled):,} solutions with {right:,} right and {wrong:,} wrong steps"
        + (f"; {repeated:,} repetitions left out" if repeated else "")
        + (f"; {len(solutions) - len(labelled):,} without labels left out" if len(labelled) < len(solutions) else "")
    )
    if not right or not wrong:
        _say(
            f"warning: every label in {path} says {'right' if right else 'wrong'}; all that a judge can learn from it "
            "is to say so of any step, and neither AUROC nor ProcessBench's F1 exists"
        )
    return labelled, {
        "solutions": len(labelled),
        "right_steps": right,
        "wrong_steps": wrong,
        "repetitions_left_out": repeated,
        "unlabelled_left_out": len(solutions) - len(labelled),
    }


def _load_model(config: RewardTrainingConfig) -> LLMRewardModel:
    """Load the judge; a model without a token classification head gets a new one here, which scoring refuses."""
    words = {name: getattr(config, name) for name in ("right_word", "wrong_word", "template", "tag", "token")}
    if config.head == "token_classification":
        settings = HeadSettings(config.head, **words)
        if not classifies_tokens(model_classes(load_config(config.model))):
            if config.model == TINY:
                raise ConfigError(f"model {TINY!r} can't have head {config.head!r}; choose another head or model")
            _say(f"note: model {config.model!r} has no token classification head; it gets a new, untrained one")
            model, tokenizer = load_token_classifier(config.model, new_head=True)
            return LLMRewardModel(model, tokenizer, settings, name=config.model)
    return LLMRewardModel.from_pretrained(config.model, head=config.head, **words)


def _training_arguments(config: RewardTrainingConfig, folder: Path) -> ProcessRewardConfig:
    return ProcessRewardConfig(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lm_weight=config.lm_weight,
        seed=config.seed,
        data_seed=config.seed,
        bf16=is_torch_bf16_gpu_available(),
    )


def _tuned(solutions: Sequence[LabelledSolution], log_odds: Sequence[Sequence[float]]) -> float:
    """The best threshold on training solutions, a probability; even odds where they don't define one."""
    try:
        return tune_threshold(*first_errors(solutions, log_odds))
    except DataError as error:
        _say(f"note: {error}; steps count as wrong below {EVEN_ODDS}")
        return EVEN_ODDS


def _say(words: str) -> None:
    tqdm.write(f"[{time.strftime('%H:%M:%S')}] {words}", file=sys.stderr)


class _Journal(TrainerCallback):  # type: ignore[misc]  # Transformers is not typed for mypy, see pyproject.toml
    """Writes metrics.jsonl and shows progress."""

    def __init__(self, folder: Path) -> None:
        self._directory = RunDirectory(folder)
        self._bar: tqdm[Any] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Learn how long it will take."""
        self._bar = tqdm(total=state.max_steps, desc="Training", unit="step", dynamic_ncols=True)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append a line of metrics, and draw it."""
        if logs is None or "loss" not in logs:
            return  # a summary of the whole training
        values = {name: float(value) for name, value in logs.items()}
        self._directory.append_metrics({"global_step": state.global_step, "time": time.time(), **values})
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{values['loss']:.4f}", right=f"{values['step_accuracy']:.0%}", refresh=False)
            self._bar.update(state.global_step - self._bar.n)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the progress bar."""
        if self._bar is not None:
            self._bar.close()
