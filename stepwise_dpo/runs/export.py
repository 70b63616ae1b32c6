"""Take a run along: the command and the file that repeat it, its metrics, and its model as one archive.

Everything here is text, or made of a run's directory; nothing imports torch.
"""

import csv
import io
import json
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
from pydantic_core import PydanticUndefined

from stepwise_dpo.errors import RunError
from stepwise_dpo.learning.checkpoints import MANIFEST, faults, is_sealed
from stepwise_dpo.learning.estimates import Estimate
from stepwise_dpo.learning.names import BUNDLED, TINY
from stepwise_dpo.runs.config import READ_BY_ONE_LOSS, RunConfig
from stepwise_dpo.runs.directory import RunDirectory

SAFE_SUFFIXES = (".safetensors", ".json", ".txt", ".jinja", ".md")
"""Weights without code, and text. A pickle could run code where it is loaded."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that begins so for a formula and runs it."""

PROCESSES = 8
"""Of the `accelerate launch` line: a usual GPU machine."""


# --------------------------------------------------------------------------------------------- what repeats the run


def portable(config: RunConfig) -> RunConfig:
    """Name data and local model folders without where they lie, for places where that is nobody's business."""
    places = {}
    for name in ("data", "eval_data"):
        if value := getattr(config, name):
            places[name] = PurePath(value).name
    for name in ("model", "reward_model"):
        value = getattr(config, name)
        if value and (PurePath(value).is_absolute() or value.startswith((".", "~"))):
            places[name] = f"./{PurePath(value).name}"
    return config.model_copy(update=places)


def options(config: RunConfig) -> list[str]:
    """Write a configuration as options of `train`: loss, model, data, and what differs from the defaults."""
    words: list[str] = []
    for name, field in RunConfig.model_fields.items():
        value, default = getattr(config, name), field.get_default()
        always = name in ("loss", "model") or default is PydanticUndefined
        unread = READ_BY_ONE_LOSS.get(name, config.loss) != config.loss
        if value is None or unread or (value == default and not always):
            continue
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif isinstance(value, list):
            words += [option, *map(str, value)]
        elif str(value).startswith("-"):
            words.append(f"{option}={value}")  # alone it would be read as an option
        else:
            words += [option, str(value)]
    return words


def command(config: RunConfig, output_dir: str) -> str:
    """Write the command that repeats a run, for a shell."""
    return shlex.join(["python", "-m", "stepwise_dpo", "train", *options(config), "--output-dir", output_dir])


def accelerate_command(config: RunConfig, output_dir: str, processes: int = PROCESSES) -> str:
    """Write the command that runs it with several processes, one per GPU; the batch size is that of each."""
    launch = [
        *("accelerate", "launch", "--multi_gpu", "--num_machines", "1", "--num_processes", str(processes)),
        # What the trainer itself decides: precision "auto" takes bfloat16 where the GPU has it.
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
        *("-m", "stepwise_dpo", "train"),
    ]
    return shlex.join([*launch, *options(config), "--output-dir", output_dir])


def settings_yaml(config: RunConfig, output_dir: str | None = None) -> str:
    """Write all settings for `train --config`, also those that are at their defaults."""
    settings = {name: value for name, value in config.model_dump().items() if value is not None}
    if output_dir is not None:
        settings["output_dir"] = output_dir
    head = "# python -m stepwise_dpo train --config THIS_FILE\n"
    return head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)


# ------------------------------------------------------------------------------------------------------- the curves


def disarmed(text: str) -> str:
    """Write a text as a spreadsheet may read it: one that would run as a formula gets an apostrophe in front."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def metrics_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Write metrics as a table: a row per record, a column per key, empty where a record has none."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "nan" if value is None else value for key, value in record.items()} for record in records)
    return text.getvalue()


def metrics_json(records: Sequence[Mapping[str, Any]]) -> str:
    """Write metrics as a JSON list, a record a line; null is what was no number."""
    lines = ",\n".join(json.dumps(dict(record)) for record in records)
    return f"[\n{lines}\n]\n" if lines else "[]\n"


# -------------------------------------------------------------------------------------------------------- the model


def pack(run: RunDirectory, target: Path) -> None:
    """Write a run's model as a zip archive: the checkpoint at its top, a model card, and `run/` with how it came about.

    The archive holds safetensors, JSON and text only, and names no place of this machine.

    Args:
        run: one that kept a model.
        target: the archive to write; nothing is left there when it fails.

    Raises:
        RunError: the run has no model (yet), its files are not what was saved, or one can't be read or written.
    """
    if not (run.final / "config.json").is_file():
        raise RunError(f"run {run.id!r} has no model to download; it is kept when a run finishes or is stopped")
    for folder in (run.final, run.path / "reward_model"):
        if is_sealed(folder) and (wrong := faults(folder)):
            raise RunError(f"run {run.id!r}: {folder.name} is not what was saved: {', '.join(wrong)}")
    config = portable(run.config())
    files, left_out = _checkpoint_files(run)
    texts = {
        "README.md": model_card(run, config, left_out),
        "run/config.yaml": settings_yaml(config),
        "run/metrics.csv": metrics_csv(run.metrics()[0]),
        "run/report.json": json.dumps(run.report() or {}, indent=1) + "\n",
    }
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
            for name, path in files.items():
                # Weights hardly get smaller, and take long.
                packed = zipfile.ZIP_STORED if path.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
                archive.write(path, name, packed)
    except (OSError, zipfile.LargeZipFile) as error:
        target.unlink(missing_ok=True)
        raise RunError(f"run {run.id!r}: the archive can't be written: {error}") from error


def _checkpoint_files(run: RunDirectory) -> tuple[dict[str, Path], list[str]]:
    """The files of a checkpoint by their names in the archive, and the names of those that aren't safe to share."""
    files: dict[str, Path] = {}
    left_out: list[str] = []
    for folder, prefix in ((run.final, ""), (run.path / "reward_model", "reward_model/")):
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if path.name == MANIFEST:
                continue  # it would speak of files that are left out
            # A link could lead anywhere.
            safe = path.is_file() and not path.is_symlink() and path.suffix in SAFE_SUFFIXES
            if safe and prefix + path.name != "README.md":
                files[prefix + path.name] = path
            else:
                left_out.append(prefix + path.name)
    return files, left_out


def model_card(run: RunDirectory, config: RunConfig, left_out: Sequence[str] = ()) -> str:
    """Write a run's model card: where the model comes from, what it was trained on and how, before and after.

    Args:
        run: whose report is read.
        config: as the card shall show it, see `portable`.
        left_out: files of the checkpoint that aren't in the archive.
    """
    on_hub = config.model not in (*BUNDLED, TINY) and not config.model.startswith(("./", ".", "/", "~"))
    front: dict[str, Any] = {"library_name": "transformers", "tags": ["stepwise-dpo", config.loss]}
    if on_hub:
        front["base_model"] = config.model
    method = "standard DPO" if config.loss == "dpo" else "a step-wise loss that process rewards weigh"
    kind = "AutoModelForSeq2SeqLM" if _is_encoder_decoder(run) else "AutoModelForCausalLM"
    status = run.status()
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {_code(config.model)} after {method}",
        "",
        f"Trained with Stepwise DPO for {status.global_step:,} of {status.max_steps:,} optimiser steps"
        + (", stopped by its owner." if status.state == "stopped" else "."),
        "",
        f"- Base model: {_code(config.model)}",
        f"- Preference pairs: {_code(config.data)}",
        f"- Held-out pairs: {_code(config.eval_data) if config.eval_data else 'none, measured on the training pairs'}",
    ]
    if config.reward_model:
        lines.append(f"- Process reward model: {_code(config.reward_model)}")
    lines += ["", "## Before and after", "", *_figures(run.report() or {})]
    lines += [
        *("", "## Use", ""),
        "Unpack the archive and load its folder; it holds weights as safetensors and no code:",
        "",
        f"    from transformers import {kind}, AutoTokenizer",
        "",
        f"    model = {kind}.from_pretrained(FOLDER, use_safetensors=True)",
        "    tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
        "",
        *("## Settings", "", "The command that repeats the run:", ""),
        _indented(command(config, "runs/again")),
        *("", "All settings, as `train --config` reads them (`run/config.yaml`):", ""),
        _indented(settings_yaml(config)),
    ]
    if left_out:
        names = ", ".join(map(_code, left_out))
        lines += ["", f"Left out of this archive, since they are no safetensors, JSON or text: {names}."]
    return "\n".join(lines) + "\n"


def _is_encoder_decoder(run: RunDirectory) -> bool:
    try:
        settings = json.loads((run.final / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"run {run.id!r}: final/config.json can't be read: {error}") from error
    if not isinstance(settings, dict):
        raise RunError(f"run {run.id!r}: final/config.json must hold an object")
    return bool(settings.get("is_encoder_decoder"))


def _indented(text: str) -> str:
    """A block of code in Markdown that nothing within can end."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _figures(report: Mapping[str, Any]) -> list[str]:
    before, after, change = (report.get(part) or {} for part in ("before", "after", "change"))
    if not after:
        return ["Not measured: the run ended before."]
    rows = [
        f"| {key.replace('_', ' ')} | {_number(before.get(key))} | {_number(after[key])} | {_change(change, key)} |"
        for key in after
        if isinstance(after[key], (int, float)) and key != "trained_on"
    ]
    leaked = after.get("trained_on")
    if isinstance(leaked, (int, float)) and leaked:
        rows += ["", f"Of the compared pairs, {leaked:,.0f} are on problems that were trained on."]
    return ["| figure | before | after | change (95% interval) |", "| --- | --- | --- | --- |", *rows]


def _change(change: Mapping[str, Any], key: str) -> str:
    moved = Estimate.read(change, key)
    if moved is None:
        return "–"
    return f"{moved.value:+.3g}" + ("" if moved.interval is None else " ({:+.3g} to {:+.3g})".format(*moved.interval))


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "–"


def _code(text: str) -> str:
    """Quote a name in Markdown; what would end the quotation is left out."""
    return "`" + " ".join(text.replace("`", "").split()) + "`"
