"""What a run writes and shows while it goes on, status, metrics and progress, and how it hears that it shall stop."""

import os
import shutil
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
from accelerate.utils import broadcast_object_list
from pydantic import BaseModel, ConfigDict, Field
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stepwise_dpo.learning.checkpoints import OWN_STATE, Checkpoint, read_own_state, readable_bytes
from stepwise_dpo.learning.rewards import Progress
from stepwise_dpo.learning.weights import weights_bytes
from stepwise_dpo.runs.checkpoints import CHECKPOINT_WEIGHTS, ResumePoint
from stepwise_dpo.runs.directory import RunDirectory, RunStatus, State
from stepwise_dpo.runs.launch import is_first_process, read_launch
from stepwise_dpo.runs.progress import ProgressBar

if TYPE_CHECKING:
    from torch import nn

_MAX_ERROR = 10_000  # characters
_PHASE_SECONDS = 1.0
_STATUS_SECONDS = 0.25  # a status file per optimiser step would be most of a tiny model's step


class StoppedBeforeTraining(Exception):
    """Somebody asked to stop while the run was still loading."""


class _Beside(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    metrics_bytes: int = Field(ge=0)


class Journal(TrainerCallback):
    """Writes a run's status and metrics, shows progress, and looks whether somebody asked to stop.

    Only the first of several processes writes and shows.
    """

    def __init__(self, directory: RunDirectory, point: ResumePoint | None = None) -> None:
        self.directory = directory
        self.writes = is_first_process()
        self._status = RunStatus(
            "running",
            pid=os.getpid(),
            create_time=psutil.Process().create_time(),
            global_step=0 if point is None else point.global_step,
            max_steps=0 if point is None else directory.status().max_steps,
            started=time.time(),
        )
        self._training = False
        self.stopped_early = False
        self._written = 0.0
        self._bar: tqdm[Any] | None = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the run: where its metrics ended."""
        return _Beside(metrics_bytes=self.directory.metrics_size()).model_dump()

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Forget the metrics that a resumed run is about to write again.

        Raises:
            RunError: nobody knows which; the checkpoint doesn't say it, or a metrics file has become shorter.
        """
        if self.writes:
            name, beside = f"{checkpoint.path.name}/{OWN_STATE}", read_own_state(checkpoint.path).beside
            self.directory.cut_metrics(self.directory.checked(name, beside, _Beside).metrics_bytes)

    def phase(self, words: str) -> None:
        """Say what the run does now; before training, also the moment to heed a request to stop."""
        self._update(phase=words)
        alone = read_launch().processes == 1  # several processes stop together, in the training loop
        if alone and not self._training and self.directory.stop_requested():
            raise StoppedBeforeTraining
        if self.writes:
            tqdm.write(f"[{time.strftime('%H:%M:%S')}] {words}", file=sys.stderr)

    def bar(self, description: str, unit: str) -> Progress | None:
        """Show how far work outside the training loop is, as a bar and beside the phase; None in other processes."""
        if not self.writes:
            return None
        bar, phase = ProgressBar(description, unit, leave=False), self._status.phase

        def show(done: int, total: int) -> None:
            bar(done, total)
            if time.monotonic() - self._written >= _PHASE_SECONDS:
                self._update(phase=f"{phase}, {done / total:.0%}")

        return show

    def end(self, state: State, error: str | None = None) -> None:
        """Write the last status."""
        # An error of somebody else's may say anything; a status of any size is refused by who reads it.
        self._status = replace(self._status, state=state, phase=state, error=error and error[:_MAX_ERROR])
        if self.writes:
            self.directory.write_last_status(self._status)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Learn how long it will take."""
        self._training = True
        self._update(max_steps=state.max_steps)
        if self.writes:
            self._bar = tqdm(total=state.max_steps, desc="Training", unit="step", dynamic_ncols=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count an optimiser step; stop after it if asked to."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)
        self._status = replace(self._status, global_step=state.global_step)
        if time.monotonic() - self._written >= _STATUS_SECONDS:
            self._update()
        # One process looks and tells the others: if one left the loop before them, they would wait for it forever.
        requested = broadcast_object_list([self.writes and self.directory.stop_requested()])[0]
        if requested and state.global_step < state.max_steps:
            self.stopped_early = True
            self._update(state="stopping", global_step=state.global_step)
            control.should_training_stop = True
            control.should_save = broadcast_object_list([self._room_for_checkpoint(kwargs["model"])])[0]

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Within an optimiser step, say that a request to stop was heard."""
        self._answer_stop()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Within an evaluation, say that a request to stop was heard."""
        self._answer_stop()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After a checkpoint, say that a request to stop was heard."""
        self._answer_stop()

    def _answer_stop(self) -> None:
        """Say "stopping" at once: whoever asked waits for the end of the step only if somebody answers.

        A step of 256 pairs takes minutes on a CPU; without an answer the process is ended sooner, and all is lost.
        """
        if self.writes and self._status.state != "stopping" and self.directory.stop_requested():
            self._update(state="stopping")

    def _room_for_checkpoint(self, model: "nn.Module") -> bool:
        """Whether the disk has room for a checkpoint beside the policy; to stop shall not fail for want of it."""
        needed, free = (1 + CHECKPOINT_WEIGHTS) * weights_bytes(model), shutil.disk_usage(self.directory.path).free
        if self.writes and needed > free:
            tqdm.write(
                f"warning: no checkpoint to resume from: it and the policy need {readable_bytes(needed)}, and "
                f"{readable_bytes(free)} of disk are free",
                file=sys.stderr,
            )
        return needed <= free

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append a line of metrics."""
        if not self.writes or logs is None or "train_runtime" in logs:
            return  # the last one is a summary of the whole training
        values = {name: float(value) for name, value in logs.items()}
        epoch = values.pop("epoch", float(state.epoch or 0))
        self.directory.append_metrics({"global_step": state.global_step, "epoch": epoch, "time": time.time(), **values})
        if self._bar is not None and "loss" in values:
            self._bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the progress bar."""
        self._update(global_step=state.global_step)
        if self._bar is not None:
            self._bar.close()

    def _update(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)
        self._written = time.monotonic()
        if self.writes:
            self.directory.write_status(self._status)
