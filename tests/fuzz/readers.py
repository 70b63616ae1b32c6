"""Everything that reads what comes from outside, each as a function that may only raise this package's own errors.

`Readers.families` names them by where the input comes from. Readers of files take bytes, readers of what a browser or a
client of the API sends take any value that JSON can hold, readers of the environment take text. `test_readers.py` gives
them hypothesis' inputs, `coverage_guided.py` those of a fuzzer.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from endpoint_readers import NAMES, EndpointReaders  # beside this file
from environment_readers import environment_readers

from stepwise_dpo.errors import StepwiseDPOError
from stepwise_dpo.preferences.formats import load_labelled_solutions
from stepwise_dpo.preferences.pairs import PreferencePair, Step, dump_pairs, load_pairs, parse_pairs
from stepwise_dpo.runs.checkpoints import refuse_to_resume
from stepwise_dpo.runs.config import make_config, preset_settings, read_config_file
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.discarding import FILE as DISCARDED
from stepwise_dpo.runs.discarding import is_discarded
from stepwise_dpo.runs.export import metrics_csv, metrics_json, model_card, portable, settings_yaml
from stepwise_dpo.runs.limits import check_public
from stepwise_dpo.runs.notes import read_note, write_note
from stepwise_dpo.runs.pace import known_pace
from stepwise_dpo.runs.retention import forget
from stepwise_dpo.runs.reward_config import make_reward_config
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.runs.ticket import owner_hash, read_ticket
from stepwise_dpo.ui import data_actions, free_text
from stepwise_dpo.ui.address import arrive, read_address
from stepwise_dpo.ui.compare_choice import Choice as Compared
from stepwise_dpo.ui.compare_choice import check_prompt, examples_of, look_up
from stepwise_dpo.ui.draft_check import check_draft, count_tokens
from stepwise_dpo.ui.examples_table import Arrangement, rearranged, table_html
from stepwise_dpo.ui.inference_results import measured_by_run
from stepwise_dpo.ui.judges import JUDGES, check_model_name
from stepwise_dpo.ui.library import ExampleSet, Library
from stepwise_dpo.ui.measuring import models_of
from stepwise_dpo.ui.pulse import newest_of
from stepwise_dpo.ui.recipe import read_recipe
from stepwise_dpo.ui.request_bodies import check_body
from stepwise_dpo.ui.reward_views import read_look
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.run_table import Choice, overlay
from stepwise_dpo.ui.train_form import Form, demo_form, preset_form, settings_of, split
from stepwise_dpo.ui.train_live import updates
from stepwise_dpo.ui.train_words import plan, plan_words
from stepwise_dpo.ui.visitors import known_or_new
from stepwise_dpo.ui.workspace import Workspace

Reader = Callable[[Any], object]

VISITOR = "a-visitor-of-the-fuzzer's"
OPEN, OTHER = "open.json", "other.json"


def survives(reader: Reader, given: Any) -> StepwiseDPOError | None:
    """Read, and refuse every other error than this package's; its words must be text that can be sent.

    Returns:
        the error, None where the input was accepted.
    """
    try:
        reader(given)
    except StepwiseDPOError as error:
        str(error).encode()
        return error
    return None


def sample_library() -> Library:
    """Two small sets."""
    pairs = tuple(
        PreferencePair(f"What is {n} + 1?", [Step(f"{n} + 1 = {n + 1}", True)], [Step("Answer: 0", False)], str(n))
        for n in range(1, 31)
    )
    return Library((ExampleSet(OPEN, pairs), ExampleSet(OTHER, pairs[:2])), OPEN)


class Readers:
    """The readers with the files that they need.

    Args:
        folder: an empty one; on a disk in memory, if there is one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.library = sample_library()
        self.supervisor = Supervisor(folder / "runs")
        data = folder / "data.json"
        data.write_text(dump_pairs(self.library.current.pairs))
        self.run = RunDirectory(folder / "runs" / "20261122-153000-dpo-1a2b")
        self.run.create(make_config({"data": str(data), "model": "tiny"}))
        self.run.write_status(replace(self.run.status(), state="finished", global_step=3, max_steps=3))
        self.kept: dict[str, bytes] = {}
        self._put_back()
        self.kept = {path.name: path.read_bytes() for path in self.run.path.iterdir() if path.is_file()}
        self.workspace = Workspace(folder / "workspaces", self.library)
        self.visited = self.workspace._of(VISITOR)
        self.endpoints = EndpointReaders(self.library, self.supervisor, self.run, self._put_back)

    @property
    def families(self) -> dict[str, dict[str, Reader]]:
        """All readers by name, by family."""
        return {
            "examples": {
                "pairs of JSON": lambda data: self._write_back(parse_pairs(data, "f.json")),
                "pairs of JSON Lines": lambda data: self._write_back(parse_pairs(data, "f.jsonl")),
                "a file of pairs": lambda data: load_pairs(self._file("in.json", data)),
                "labelled solutions": lambda data: load_labelled_solutions(self._file("in.jsonl", data)),
                "labelled solutions of JSON": lambda data: load_labelled_solutions(self._file("in.json", data)),
                "an upload": lambda data: data_actions.read_upload(self._file("up.jsonl", data)),
            },
            "settings": {
                "a configuration file": self._config_file,
                "other settings of the form": self._other_settings,
            },
            "runs": {
                name: lambda data, name=name: self._run_file(name, data)
                for name in (
                    *("config.json", "status.json", "metrics.jsonl", "report.json", "ticket.json", "notes.txt"),
                    *("rewards.json", "environment.json", "examples.jsonl", "events.log", "final/config.json"),
                    *("checkpoint-2/manifest.json",),
                )
            },
            "workspace": {"index.json": lambda data: self._workspace(data)},
            "browser": {
                "a saved draft": lambda sent: data_actions.save(self.library, sent),
                "a draft of the open example": self._draft,
                "a draft to check": lambda sent: json.dumps(check_draft(sent)),
                "a draft to count": lambda sent: count_tokens(_count, lambda _: True, sent, True),
                "a click in a list": lambda sent: data_actions.chosen_index(self.library, sent),
                "a click in the table": self._table,
                "a recipe": lambda sent: data_actions.generate(
                    self.library, read_recipe(True, *_fields(sent, [None, None, 1, 0, 2, 4, 50, None]))
                ),
                "a set's name": lambda sent: data_actions.open_set(self.library, sent),
                "a format's name": lambda sent: data_actions.download(self.library, sent),
                "an index": lambda sent: data_actions.delete(
                    self.library, data_actions.valid_index(self.library, sent)
                ),
                "an address": self._address,
                "the Train form": lambda sent: self._form(Form(*_fields(sent, list(demo_form())))),
                "a preset's name": lambda sent: preset_form(sent, self.library),
                "a run's id": lambda sent: self.supervisor.run(sent),
                "a run's id to show": lambda sent: orjson.dumps(
                    _plain(updates(RunReader(self.supervisor), "", sent, Choice()))
                ),
                "a run to draw": self._overlay,
                "a note": lambda sent: write_note(self.run, sent),
                "a visitor": self._visitor,
                "a model's name": lambda sent: check_model_name(sent, JUDGES, True),
                "typed text": lambda sent: free_text.read_typed(*_fields(sent, ["1 + 1?", "2"])),
                "a typed problem": check_prompt,
                "a view of rewards": lambda sent: read_look(*_fields(sent, ["centered", "before", "sum"])),
                "a comparison": self._comparison,
                "settings of a run": lambda sent: make_config({"data": "d.json"}, _named(sent)),
                "settings of a judge": lambda sent: make_reward_config(**{"model": "m", "data": "d", **_named(sent)}),
                "a request's body": lambda sent: check_body(_body(sent)),
            },
            "api": {name: lambda sent, name=name: self.endpoints.call(name, sent) for name in NAMES},
            "environment": environment_readers(self.folder),
        }

    def _put_back(self) -> None:
        """Have the run again as it was, whatever an endpoint did to it."""
        self.run.final.mkdir(parents=True, exist_ok=True)
        (self.run.final / "config.json").write_text("{}")
        for kept, content in self.kept.items():
            (self.run.path / kept).write_bytes(content)
        for left in ("stop", DISCARDED, "notes.txt"):
            (self.run.path / left).unlink(missing_ok=True)

    def _file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def _write_back(self, pairs: list[PreferencePair]) -> None:
        assert parse_pairs(dump_pairs(pairs), "again.json") == pairs

    def _config_file(self, data: bytes) -> None:
        settings = read_config_file(self._file("run.yaml", data))
        preset = settings.pop("preset", None)
        start = {} if preset is None else preset_settings(str(preset), settings.get("loss"))
        config = make_config(start, settings)
        check_public(config, examples=1, held_out=1, steps=1)
        settings_yaml(config)

    def _other_settings(self, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        settings = settings_of(demo_form()._replace(other=text), 10, False)
        make_config(settings, {"data": "d.json"})

    def _run_file(self, name: str, data: bytes) -> None:
        """Put a file into a sound run, then let everything that reads runs read it."""
        path = self.run.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        try:
            self._read_runs()
        finally:
            for kept, content in self.kept.items():
                (self.run.path / kept).write_bytes(content)
            if name not in self.kept:
                path.unlink(missing_ok=True)
            if path.parent.name == "checkpoint-2":
                path.parent.rmdir()
            if name == "final/config.json":
                path.write_text("{}")

    def _read_runs(self) -> None:
        run = self.run
        reads: list[Callable[[], object]] = [
            *(run.config, run.status, run.metrics, run.report, run.rewards, run.examples, run.environment),
            lambda: read_note(run),
            lambda: refuse_to_resume(run),
            lambda: model_card(run, portable(run.config())),
            lambda: (metrics_csv(run.metrics()[0]), metrics_json(run.metrics()[0])),
            lambda: [measured_by_run(run.examples(), which) for which in ("before", "after")],
            lambda: self.supervisor.status(run),
            lambda: self.supervisor.run(run.id, "somebody"),
        ]
        first: StepwiseDPOError | None = None
        for read in reads:
            try:
                read()
            except StepwiseDPOError as error:
                first = first or error
        # What looks at all runs at once must get over a broken one.
        ticket = read_ticket(run)
        assert ticket is None or isinstance(ticket.server_lives, bool)
        self.supervisor.recover()
        pace = known_pace(self.supervisor.runs(), "tiny", "dpo")
        plan_words(plan(self.library, demo_form()._replace(held_out_set=""), True), pace)
        reader = RunReader(self.supervisor)
        orjson.dumps(_plain(updates(reader, "", run.id, Choice())))
        newest_of(reader, "")
        models_of(reader.views(""))
        RunReader(self.supervisor, True).recent_views("somebody")
        is_discarded(run)
        forget(self.supervisor, 1e12)
        if first is not None:
            raise first

    def _workspace(self, data: bytes) -> None:
        self.visited.mkdir(parents=True, exist_ok=True)
        (self.visited / "index.json").write_bytes(data)
        fresh = Workspace(self.folder / "workspaces", self.library, keep_seconds=1e9)
        library, _ = fresh.load(VISITOR)
        table_html(library, 0, "", "all", Arrangement()).encode()
        fresh.save(VISITOR, library)
        for path in self.visited.iterdir():
            path.unlink()

    def _draft(self, sent: object) -> None:
        data_actions.save(self.library, {"key": f"{OPEN}\n1", "index": 0, "draft": sent})

    def _table(self, sent: object) -> None:
        table_html(self.library, 0, "", "all", rearranged(Arrangement(), sent)).encode()

    def _address(self, sent: object) -> None:
        arrive(self.library, read_address(_named(sent)))

    def _form(self, form: Form) -> None:
        for public in (True, False):
            split(self.library, form)
            make_config(settings_of(form, 3, public), {"data": "d.json"})
            plan_words(plan(self.library, form, public), None)

    def _overlay(self, sent: object) -> None:
        with suppress(ValueError):  # as it says
            overlay(Choice(), sent, True, "")

    def _visitor(self, sent: object) -> None:
        known_or_new(sent)
        self.workspace.load(sent)
        if isinstance(sent, str):
            owner_hash(known_or_new(sent))
            self.supervisor.runs(sent)

    def _comparison(self, sent: object) -> None:
        choice = Compared(*_fields(sent, ["before:x", "after:x", "open", 4]))
        examples_of(choice, self.library, 40)
        look_up([], choice, self.library, None, 40)  # type: ignore[arg-type]  # no models, nothing is measured


def _count(_: str, texts: list[str]) -> list[int]:
    return [len(text.encode()) for text in texts]


def _fields(sent: object, usual: list[Any]) -> list[Any]:
    """A form's fields: those that were sent, by number, over the usual ones."""
    fields = list(usual)
    given = sent if isinstance(sent, dict) else {0: sent}
    for number, value in given.items():
        if isinstance(number, int) and 0 <= number < len(fields):
            fields[number] = value
    return fields


def _named(sent: object) -> dict[str, Any]:
    return {str(name): value for name, value in sent.items()} if isinstance(sent, dict) else {"set": sent}


def _body(sent: object) -> bytes:
    """What a client would send, or any text."""
    if isinstance(sent, str):
        return sent.encode("utf-8", "surrogatepass")
    try:
        return json.dumps(sent).encode()
    except ValueError:  # an integer that Python can't write
        return b"9" * 5_000


def _plain(value: Any) -> Any:
    """What Gradio sends of an update: dictionaries, lists, text."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value
