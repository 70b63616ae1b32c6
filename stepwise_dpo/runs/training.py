"""run(config, run_dir): load, score, train, evaluate, save; resume(run_dir): go on where a run was cut off.

The command line, the worker and the tests all call these two.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from stepwise_dpo.errors import RunError, StepwiseDPOError
from stepwise_dpo.learning.evaluation import Evaluation, compare_evaluations, evaluate_policy, measure_change
from stepwise_dpo.learning.loading import Policy, load_policy
from stepwise_dpo.learning.names import BUNDLED, HUB_DEFAULT, SMOOTHED_LOSS_TYPES
from stepwise_dpo.learning.rewards import NEUTRAL, LLMRewardModel, PairRewards
from stepwise_dpo.learning.trainer import StepwiseDPOConfig, StepwiseDPOTrainer
from stepwise_dpo.learning.weights import weights_bytes, weights_hash
from stepwise_dpo.preferences.checker import is_known
from stepwise_dpo.preferences.pairs import PreferencePair, load_pairs
from stepwise_dpo.preferences.statistics import mean_characters
from stepwise_dpo.runs.checkpoints import (
    ResumePoint,
    bytes_to_write,
    check_disk,
    check_same_data,
    check_same_weights,
    find_resume_point,
    refuse_to_resume,
)
from stepwise_dpo.runs.config import RunConfig, planned_steps
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.final_save import save_models
from stepwise_dpo.runs.journal import Journal, StoppedBeforeTraining
from stepwise_dpo.runs.launch import is_first_process, read_launch
from stepwise_dpo.runs.leftovers import sweep_run
from stepwise_dpo.runs.provenance import changes, describe_environment
from stepwise_dpo.runs.ticket import read_ticket


def run(config: RunConfig, run_dir: str | os.PathLike[str], loaded: Policy | None = None) -> RunDirectory:
    """Do one run from start to end and leave its directory, see `runs.directory`.

    Args:
        config: what to do.
        run_dir: a new directory, or one that `RunDirectory.create` prepared for this configuration and this process.
        loaded: a policy as it was loaded; where it is the configured one, it is trained instead of being loaded again.

    Returns:
        the directory; its state is "finished", or "stopped" when somebody asked for that.

    Raises:
        RunError: the directory holds another run, or one that a server is to start.
        ConfigError: as `launch.read_launch`.
        StepwiseDPOError: bad data, model or configuration; the run's status says "failed" and why.
    """
    directory = RunDirectory(run_dir)
    if is_first_process() and not _is_prepared(directory, config):
        directory.create(config)
    return _attend(config, directory, None, loaded)


def resume(run_dir: str | os.PathLike[str], loaded: Policy | None = None) -> RunDirectory:
    """Go on with a run that was stopped, interrupted or failed; it ends as if it had never been cut off.

    Everything comes from the directory: the configuration as it was saved, the newest checkpoint that is what was
    written, and the metrics up to there. The reference is the policy that the run began with. A run that was cut off
    before its first checkpoint begins again at optimiser step 0, and says so.

    Args:
        run_dir: the run's directory.
        loaded: as for `run`.

    Returns:
        the directory, as `run`.

    Raises:
        RunError: there is nothing to resume, or the data changed since; the run is left as it was.
        StepwiseDPOError: as `run`.
    """
    directory = RunDirectory(run_dir)
    config = directory.config()
    if is_first_process() and (reason := refuse_to_resume(directory)) is not None:
        raise RunError(reason)
    point = find_resume_point(directory)
    check_same_data(directory, config, point)
    if is_first_process():
        tqdm.write(str(point), file=sys.stderr)
        directory.forget_stop()
        sweep_run(directory)  # what is half written would look as if this process wrote it
        if point.checkpoint is None:
            directory.forget_results()
    return _attend(config, directory, point, loaded)


def _is_prepared(directory: RunDirectory, config: RunConfig) -> bool:
    """Whether a directory was made for this very run, and nobody else is to do it."""
    if not directory.exists() or (directory.path / "metrics.jsonl").exists():
        return False
    status = directory.status()
    if status.state == "starting":
        ours = status.pid == os.getpid()
    else:
        ours = status.state == "queued" and read_ticket(directory) is None  # else it waits for its turn
    return ours and directory.config() == config


def _attend(
    config: RunConfig, directory: RunDirectory, point: ResumePoint | None, loaded: Policy | None = None
) -> RunDirectory:
    """Run, and leave a status that says how it ended, whatever happens."""
    journal = Journal(directory, point)
    try:
        _run(config, directory, journal, point, loaded)
    except StoppedBeforeTraining:
        checkpoint = None if point is None else point.checkpoint
        kept = "there is nothing to keep" if checkpoint is None else f"{checkpoint.path.name} is kept"
        journal.end("stopped", f"stopped before the first optimiser step; {kept}")
        return directory
    except KeyboardInterrupt:
        with _undisturbed():
            if directory.stop_requested():  # and it took longer than whoever asked would wait
                journal.end("stopped", directory.lost_by_force())
            else:
                journal.end("interrupted", "interrupted by Ctrl-C or SIGTERM")
        raise
    except BaseException as error:
        # Whatever it was, the directory must not claim forever that the run goes on.
        text = str(error) if isinstance(error, StepwiseDPOError) else f"{type(error).__name__}: {error}"
        journal.end("failed", text)
        raise
    journal.end("stopped" if journal.stopped_early else "finished")
    return directory


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM while the last status is written: a repeated one would leave it at "running"."""
    if threading.current_thread() is not threading.main_thread():  # another one gets no signals
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(
    config: RunConfig,
    directory: RunDirectory,
    journal: Journal,
    point: ResumePoint | None,
    loaded: Policy | None,
) -> None:
    journal.phase("reading data")
    train_pairs = load_pairs(config.data)
    eval_pairs = load_pairs(config.eval_data) if config.eval_data else None
    measured_pairs = eval_pairs or train_pairs

    journal.phase("loading models")
    policy = loaded if loaded is not None and loaded.name == config.model else load_policy(config.model)
    reward_model = _load_reward_model(config) if config.reward_model else None
    everything = [*train_pairs, *(eval_pairs or [])]
    # As needed: the first optimiser step doesn't wait for what is only looked at afterwards.
    ahead = config.frozen_scores == "ahead"
    if ahead and reward_model is not None:
        # To score them takes minutes; where nothing does, the trainer finds at once what is too long.
        policy.step_tokenizer().check_lengths(everything, config.max_length)
    if journal.writes:
        models = [config.model, *([config.reward_model] if config.reward_model else [])]
        warnings = [*_unknown_characters(policy, everything), *_unknown_problems(models, train_pairs)]
        _record_environment(config, directory, point, policy, reward_model, train_pairs, warnings)

    def score(pairs: Sequence[PreferencePair]) -> None:
        if reward_model is not None and journal.writes:
            journal.phase("scoring steps")
            rewards = reward_model.score_pairs(pairs, progress=journal.bar("Process rewards", "sequence"))
            directory.write_rewards(_rewards_record(config, reward_model.head, train_pairs, rewards))

    if ahead:
        score(everything)

    journal.phase("preparing")
    trainer = StepwiseDPOTrainer(
        policy.model,
        training_arguments(config, directory.path),
        train_pairs,
        policy.tokenizer,
        eval_pairs=eval_pairs,
        reward_model=reward_model,
        callbacks=[journal],
        state_beside=journal.state,
    )
    # Their place is taken by our journal: the one prints a dictionary per step, the other a second progress bar.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)

    def measure(which: str, measured: Policy) -> Evaluation:
        journal.phase(f"evaluating the {which} model")
        return evaluate_policy(
            measured,
            measured_pairs,
            reward_model=reward_model,
            answers=config.generate,
            max_new_tokens=config.max_new_tokens,
            max_length=config.max_length,
            batch_size=config.batch_size,
            progress=journal.bar("Evaluation", "example"),
        )

    trained_on = {pair.prompt for pair in train_pairs}

    def summary(evaluation: Evaluation) -> dict[str, float]:
        return {**evaluation.summary(), "trained_on": sum(pair.prompt in trained_on for pair in measured_pairs)}

    before = measure("original", policy) if ahead else None
    if before is not None and journal.writes:
        directory.write_report({"before": summary(before)})

    journal.phase("training")
    if point is None or point.checkpoint is None:
        trainer.train()
    else:
        journal.go_on(point.checkpoint)
        trainer.resume(point.checkpoint.path)
    # The first measurement was made without the autocast that Accelerate has wrapped around this object's forward; the
    # second one shall differ from it by the training only.
    vars(policy.model).pop("forward", None)

    journal.phase("saving")
    save_models(directory, trainer, reward_model if config.train_reward_model else None, writes=journal.writes)

    after = measure("trained", policy)
    if before is None:
        # The same weights again, as they were, and where the trained ones are: a GPU rounds in its own way.
        untrained = load_policy(config.model)
        untrained.model.to(policy.model.device)
        before = measure("original", untrained)
        if not config.train_reward_model:
            score(train_pairs)
    if journal.writes:
        directory.write_examples(
            {**record, "in_training": record["prompt"] in trained_on}
            for record in compare_evaluations(measured_pairs, before, after)
        )
        change = measure_change(measured_pairs, before, after)
        directory.write_report({"before": summary(before), "after": summary(after), "change": change})


def training_arguments(config: RunConfig, run_dir: Path) -> StepwiseDPOConfig:
    """Say a run's configuration in the Trainer's words."""
    has_gpu = torch.cuda.is_available()
    bfloat16 = config.precision == "bfloat16" or (
        config.precision == "auto" and has_gpu and torch.cuda.is_bf16_supported()
    )
    evaluation = "no" if config.eval_data is None else "epoch" if config.eval_steps is None else "steps"
    # A form sends the fields of both losses; the trainer refuses what the chosen one doesn't read.
    of_loss: dict[str, Any] = {"loss_type": list(config.loss_type)}
    if set(config.loss_type) & set(SMOOTHED_LOSS_TYPES):
        of_loss["label_smoothing"] = config.label_smoothing
    if config.loss == "stepwise":
        of_loss = {name: getattr(config, name) for name in ("likelihood", "nonpositive", "anchor_to_reference")}
    return StepwiseDPOConfig(
        output_dir=str(run_dir),
        loss=config.loss,
        **of_loss,
        beta=config.beta,
        aggregation=config.aggregation,
        train_reward_model=config.train_reward_model,
        frozen_scores=config.frozen_scores,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        train_sampling_strategy="group_by_length" if config.group_by_length else "random",
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        data_seed=config.seed,
        max_length=config.max_length,
        bf16=bfloat16,
        use_cpu=not has_gpu,
        eval_strategy=evaluation,
        eval_steps=config.eval_steps,
        save_strategy="no" if config.save_steps is None else "steps",
        save_steps=config.save_steps or 1,
        save_total_limit=config.save_total_limit,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        ddp_find_unused_parameters=False,
    )


def _record_environment(
    config: RunConfig,
    directory: RunDirectory,
    point: ResumePoint | None,
    policy: Policy,
    reward_model: LLMRewardModel | None,
    train_pairs: Sequence[PreferencePair],
    warnings: list[str],
) -> None:
    """Write down what the figures depend on, say what to be warned of, and find out whether the disk has room.

    Raises:
        RunError: it has not; or a run that goes on has other models than it began with.
    """
    weights = {"model": weights_hash(policy.model)}
    if reward_model is not None:
        how = json.dumps(reward_model.settings.to_config(), sort_keys=True)
        weights["reward_model"] = weights_hash(reward_model, how)
    if point is not None:
        check_same_weights(directory, config, weights)
    processes = read_launch().processes
    judge = weights_bytes(reward_model) if reward_model is not None and config.train_reward_model else 0
    steps = planned_steps(config, len(train_pairs), processes)
    needed = bytes_to_write(config, weights_bytes(policy.model), judge, steps)
    environment = describe_environment(
        config,
        model_revision=getattr(policy.model.config, "_commit_hash", None),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        threads=torch.get_num_threads(),
        processes=processes,
        deterministic_algorithms=torch.are_deterministic_algorithms_enabled(),
        weights=weights,
        disk=check_disk(directory, needed),
        warnings=warnings,
        characters=mean_characters(train_pairs),
    )
    for words in filter(None, [*warnings, environment["disk"]["warning"]]):
        tqdm.write(f"warning: {words}", file=sys.stderr)
    began = directory.environment() or {}
    if point is not None and point.checkpoint is not None and (changed := changes(began, environment)):
        tqdm.write(
            f"warning: the run began with {'; '.join(changed)}: from here on its numbers are not bit for bit those of "
            "a run without a break",
            file=sys.stderr,
        )
    if point is not None:
        resumed = {"global_step": point.global_step, "skipped": point.skipped, **environment}
        # Of a run that begins again, nothing depends any more on what it began with.
        first = environment if point.checkpoint is None else began
        environment = {**first, "resumed": [*began.get("resumed", []), resumed]}
    directory.write_environment(environment)


def _load_reward_model(config: RunConfig) -> LLMRewardModel:
    assert config.reward_model is not None
    reward_model = LLMRewardModel.from_pretrained(
        config.reward_model,
        head=config.reward_head,
        right_word=config.reward_right_word,
        wrong_word=config.reward_wrong_word,
        template=config.reward_template,
        tag=config.reward_tag,
        token=config.reward_token,
        value=config.reward_value,
    )
    # Each of several processes has its own GPU.
    return reward_model.to(f"cuda:{read_launch().local_rank}" if torch.cuda.is_available() else "cpu")


def _rewards_record(
    config: RunConfig, head: str, pairs: Sequence[PreferencePair], rewards: Sequence[PairRewards]
) -> dict[str, Any]:
    """What rewards.json holds: the training pairs' process rewards and preferences."""
    rows = [
        {
            "id": pair.id,
            "chosen": values.chosen,
            "rejected": values.rejected,
            "preference": values.preference(config.aggregation, NEUTRAL[config.reward_value]),
        }
        for pair, values in zip(pairs, rewards, strict=False)  # the held-out pairs' rewards follow
    ]
    return {
        "reward_model": config.reward_model,
        "scoring": head,
        "value": config.reward_value,
        "aggregation": config.aggregation,
        "pairs": rows,
    }


def _unknown_characters(policy: Policy, pairs: Sequence[PreferencePair]) -> list[str]:
    unknown = [characters for characters in policy.step_tokenizer().unknown_characters(pairs) if characters]
    if not unknown:
        return []
    return [
        f"{len(unknown)} of {len(pairs)} examples have characters that {policy.name} can't read and sees as one "
        f"unknown token: {' '.join(sorted(set(''.join(unknown))))}"
    ]


def _unknown_problems(models: Sequence[str], pairs: Sequence[PreferencePair]) -> list[str]:
    bundled = [repr(model) for model in dict.fromkeys(models) if model in BUNDLED]
    if not bundled or any(is_known(pair.prompt) for pair in pairs):
        return []
    which = f"the bundled {' and '.join(bundled)} know{'s' * (len(bundled) == 1)}"
    return [
        f"{which} the bundled kinds of problems only, and none of the {len(pairs)} training prompts is of one: "
        "log-probabilities, rewards and losses of such a model say little here. Choose one that knows such text, a "
        f"local folder or a Hub id such as {HUB_DEFAULT}"
    ]
