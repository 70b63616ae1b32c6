"""The API's endpoints as readers: each is called as Gradio calls it, with arguments of any kind in any place."""

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gradio as gr
import orjson

from stepwise_dpo.errors import ConfigError, StepwiseDPOError
from stepwise_dpo.runs import supervisor as supervisor_module
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.ui.api import Endpoints, _spoken
from stepwise_dpo.ui.judges import Judges
from stepwise_dpo.ui.library import Library
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.run_reader import RunReader

if TYPE_CHECKING:
    from stepwise_dpo.learning.evaluation import Answer

NAMES = [name for name in vars(Endpoints) if not name.startswith("_")]
PARAMETERS = {name: list(inspect.signature(getattr(Endpoints, name)).parameters.values())[1:] for name in NAMES}

SECRET = "a" * 40
ROWS = [{"prompt": "1 + 1?", "chosen": [{"text": "2", "label": True}], "rejected": ["3"], "id": "a"}]
USUAL: dict[str, Any] = {
    **{"set_name": "open.json", "count": 3, "text": json.dumps(ROWS), "examples": 1, "rows": ROWS, "prompt": "1 + 1?"},
    **{"row": ROWS[0]},
    **{"steps": ["2"], "prompts": ["1 + 1?"], "reward_model": "tiny", "model": "tiny", "visitor": SECRET},
    **{"settings": {"model": "tiny", "max_steps": 1}},
}


class EndpointReaders:
    """Both pages' endpoints, with real models, though tiny ones; no process is ever started.

    Args:
        library: the bundled sets.
        supervisor: of runs; those that an endpoint makes are deleted again.
        run: the one whose id is usually sent.
        put_back: makes that run what it was.
    """

    def __init__(
        self, library: Library, supervisor: Supervisor, run: RunDirectory, put_back: Callable[[], None]
    ) -> None:
        self._supervisor, self._run, self._put_back = supervisor, run, put_back
        judges, policies = Judges(), _BriefPolicies()
        self._local, self._public = (
            Endpoints(library, RunReader(supervisor, public), judges, policies) for public in (False, True)
        )

    def call(self, name: str, sent: object) -> None:
        """Call an endpoint on either page; what the first refuses, the second is asked all the same.

        Raises:
            StepwiseDPOError: what a client would be told.
        """
        first: StepwiseDPOError | None = None
        # A stranger generates at most 500; ten thousand take seconds.
        for endpoints in (self._public,) if name == "generate" else (self._local, self._public):
            try:
                self.call_on(endpoints, name, sent)
            except StepwiseDPOError as error:
                first = first or error
        if first is not None:
            raise first

    def call_locally(self, name: str) -> None:
        """Call an endpoint with sound arguments.

        Raises:
            StepwiseDPOError: as `call`.
        """
        self.call_on(self._local, name, {})

    def call_on(self, endpoints: Endpoints, name: str, sent: object) -> None:
        """Call an endpoint with sound arguments but for those that were sent, by number.

        Raises:
            StepwiseDPOError: as `call`.
        """
        usual = {**USUAL, "before": f"before:{self._run.id}", "after": f"after:{self._run.id}"}
        arguments = []
        for parameter in PARAMETERS[name]:
            if parameter.name == "run_id" and parameter.default is parameter.empty:
                arguments.append(self._run.id)
            else:
                arguments.append(usual.get(parameter.name, parameter.default))
        given = sent if isinstance(sent, dict) else {0: sent}
        for number, value in given.items():
            if isinstance(number, int) and 0 <= number < len(arguments):
                arguments[number] = value
        try:
            with _no_process():
                orjson.dumps(_spoken(getattr(endpoints, name))(*arguments))
        except gr.Error as error:  # what is ours, and pydantic's words about an argument of another type
            raise ConfigError(str(error.message)) from error
        finally:
            self._clear()

    def _clear(self) -> None:
        for run in self._supervisor.runs():
            if run.id != self._run.id:
                self._supervisor.delete(run)
        self._put_back()


class _BriefPolicies(Policies):
    """They stop after two tokens."""

    def answers(self, name: str, prompts: Sequence[str], max_new_tokens: int = 2) -> "list[Answer]":
        """Answer prompts."""
        return super().answers(name, prompts, max_new_tokens)


@contextmanager
def _no_process() -> Iterator[None]:
    """Let every process fail to start, as on a machine that has lost its Python."""
    known = supervisor_module.WORKER
    supervisor_module.WORKER = ("/nowhere/python",)
    try:
        yield
    finally:
        supervisor_module.WORKER = known
