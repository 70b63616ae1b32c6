"""The buttons that take a run along: its model as an archive, its metrics, its configuration."""

import hashlib
import json
import secrets
import time
from pathlib import Path
from typing import Any

import gradio as gr

from stepwise_dpo.errors import RunError, StepwiseDPOError
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.export import metrics_csv, metrics_json, pack, settings_yaml
from stepwise_dpo.ui.components import Shared, download_js, error
from stepwise_dpo.ui.hidden_paths import FILES
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.train_live import named_for_reader

REUSED_SECONDS = 1_800
"""Well below the hour after which Gradio deletes it."""

_SECRET = secrets.token_bytes(32)
_SAVE_ARCHIVE = """
(file) => {
  if (!file) return;
  const link = document.createElement('a');
  link.href = file.url;
  link.download = '';
  link.click();
}
"""


def build_exports(shared: Shared, reader: RunReader, message: gr.HTML) -> gr.Button:
    """Lay out the buttons and connect them; they take the run along that is open. Gives that of the model."""
    with gr.Row(elem_classes="run-actions"):
        archive = gr.Button("Model (zip)", size="sm", min_width=90, elem_id="export-zip")
        table = gr.Button("Metrics (CSV)", size="sm", min_width=90, elem_id="export-csv")
        records = gr.Button("Metrics (JSON)", size="sm", min_width=90, elem_id="export-json")
        settings = gr.Button("Configuration (YAML)", size="sm", min_width=90, elem_id="export-yaml")
    opened = [shared.visitor, shared.run_id]
    text = gr.Textbox(visible=False)
    file = gr.DownloadButton(visible=False)

    def on_archive(visitor: str, run_id: str) -> list[Any]:
        try:
            return [str(packed_in_cache(reader.own(visitor).run(run_id), Path(file.GRADIO_CACHE))), ""]
        except StepwiseDPOError as problem:
            return [None, error(str(problem))]

    def save(kind: str) -> Any:
        def on_save(visitor: str, run_id: str) -> list[Any]:
            try:
                return [json.dumps(exported(reader, visitor, run_id, kind)), ""]
            except StepwiseDPOError as problem:
                return ["", error(str(problem))]

        return on_save

    # `success` also follows a handler that only said what is wrong; it leaves an empty value, and nothing is saved.
    archive.click(on_archive, opened, [file, message], show_progress="minimal").success(
        None, file, None, js=_SAVE_ARCHIVE
    )
    for button, kind in ((table, "csv"), (records, "json"), (settings, "yaml")):
        button.click(save(kind), opened, [text, message], show_progress="hidden").success(
            None, text, None, js=download_js()
        )
    return archive


def packed_in_cache(run: RunDirectory, cache: Path) -> Path:
    """Pack a run's model into Gradio's cache, from which Gradio serves it by its name, and later deletes it.

    The same archive is given for as long as the run stays as it is: else clicks would fill the disk. It is called as
    the run's folder is, which is on this machine already and in public mode our own choice; the folder that it lies in
    nobody can guess.

    Raises:
        RunError: it has no model, or the archive can't be written.
    """
    try:
        state = f"{run.path}\n{run.path.stat().st_mtime_ns}"
        name = hashlib.blake2b(state.encode(), key=_SECRET, digest_size=16).hexdigest()
        target = cache.absolute() / name / f"{run.id}.zip"
        FILES.offer(str(target))
        if target.exists() and time.time() - target.stat().st_mtime < REUSED_SECONDS:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f"{secrets.token_hex(8)}.part")
        try:
            pack(run, beside)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
            if not any(target.parent.iterdir()):
                target.parent.rmdir()
    except OSError as problem:
        raise RunError(f"the archive can't be written: {problem.strerror}") from problem
    return target


def exported(reader: RunReader, visitor: str, run_id: str, kind: str) -> dict[str, str]:
    """Write a run's metrics ("csv", "json") or configuration ("yaml") as {"name", "text"} of a file.

    Raises:
        RunError: there is no such run, or nothing to write yet.
    """
    run = reader.own(visitor).run(run_id)
    if kind == "yaml":
        return {"name": f"{run.id}.yaml", "text": settings_yaml(named_for_reader(run.config(), reader.public))}
    records = run.metrics()[0]
    if not records:
        raise RunError(f"run {run.id!r} has no metrics yet; they begin with its first optimiser step")
    return {"name": f"{run.id}.{kind}", "text": metrics_csv(records) if kind == "csv" else metrics_json(records)}
