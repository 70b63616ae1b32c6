"""Commands are read by their own parsers, and the archive by Transformers: what is taken along really works."""

import csv
import io
import json
import re
import shlex
import zipfile
from pathlib import Path

import pytest
import yaml

from stepwise_dpo.cli import main
from stepwise_dpo.errors import RunError
from stepwise_dpo.preferences.pairs import save_pairs
from stepwise_dpo.runs import export
from stepwise_dpo.runs.config import PRESETS, make_config
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.export import (
    accelerate_command,
    command,
    metrics_csv,
    metrics_json,
    pack,
    portable,
    settings_yaml,
)

CONFIGS = [
    make_config({"data": "/a b/it's.json"}),
    *[make_config(settings) for settings in PRESETS.values()],
    make_config(
        {
            **{"data": "/x.json", "loss": "stepwise", "train_reward_model": True, "anchor_to_reference": True},
            **{"reward_template": '- {step} $HOME `ls`\n"{right}"', "reward_tag": "-", "reward_head": "verbalizer"},
            **{"max_steps": 7, "eval_data": "/y.json", "learning_rate": 1e-7, "precision": "float32"},
        }
    ),
    make_config({"data": "/x.json", "loss_type": ["exo_pair", "sft"], "label_smoothing": 0.001, "model": "-odd"}),
]


@pytest.fixture
def submitted(monkeypatch):
    """The configurations that `train` would have run."""
    import stepwise_dpo.runs.training as training

    seen = []

    class Submitted(Exception):
        pass

    def record(config, run_dir):
        seen.append((config, str(run_dir)))
        raise Submitted

    monkeypatch.setattr(training, "run", record)

    def submit(arguments):
        with pytest.raises(Submitted):
            main(arguments)
        return seen[-1]

    return submit


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_command_and_yaml_repeat_the_very_configuration(config, submitted, tmp_path):
    words = shlex.split(command(config, "runs/again"))
    assert words[:4] == ["python", "-m", "stepwise_dpo", "train"]
    assert submitted(words[3:]) == (config, "runs/again")

    file = tmp_path / "run.yaml"
    file.write_text(settings_yaml(config, "runs/third"), encoding="utf-8")
    assert submitted(["train", "--config", str(file)]) == (config, "runs/third")


def test_the_command_leaves_out_what_the_loss_does_not_read(submitted):
    """The page's form holds both losses' settings; as options those of the other loss are refused."""
    config = make_config({"data": "/x.json", "loss": "dpo", "nonpositive": "skip", "likelihood": "sum", "beta": 0.2})
    repeated, _ = submitted(shlex.split(command(config, "runs/again"))[3:])
    assert repeated == config.model_copy(update={"nonpositive": "train", "likelihood": "mean"})


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_accelerate_reads_its_command(config, submitted):
    from accelerate.commands.launch import launch_command_parser

    words = shlex.split(accelerate_command(config, "runs/big", 4))
    assert words[:2] == ["accelerate", "launch"]
    options = launch_command_parser().parse_args(words[2:])
    assert (options.module, options.training_script, options.num_processes) == (True, "stepwise_dpo", 4)
    assert options.multi_gpu
    assert submitted(options.training_script_args) == (config, "runs/big")


def test_portable_names_no_places():
    config = portable(make_config({"data": "/home/me/x.json", "eval_data": "/y.json", "model": "/home/me/model"}))
    assert (config.data, config.eval_data, config.model) == ("x.json", "y.json", "./model")
    assert portable(make_config({"data": "x", "model": "google/flan-t5-small"})).model == "google/flan-t5-small"


def test_metrics_as_tables():
    records = [{"global_step": 1, "loss": 0.5}, {"global_step": 1, "eval_loss": None}, {"global_step": 2, "loss": 0.25}]
    rows = list(csv.DictReader(io.StringIO(metrics_csv(records))))
    assert rows == [
        {"global_step": "1", "loss": "0.5", "eval_loss": ""},
        {"global_step": "1", "loss": "", "eval_loss": "nan"},
        {"global_step": "2", "loss": "0.25", "eval_loss": ""},
    ]
    assert json.loads(metrics_json(records)) == records
    assert json.loads(metrics_json([])) == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pairs):
    """A real run of the tiny model."""
    from stepwise_dpo.runs.training import run

    folder = tmp_path_factory.mktemp("secret-place")
    save_pairs(pairs[:4], folder / "pairs.json")
    settings = {"model": "tiny", "data": str(folder / "pairs.json"), "max_steps": 2, "generate": 0}
    return run(make_config(settings), folder / "run`with`ticks")


def test_case_23_the_archive_loads_and_holds_only_what_is_safe(finished, tmp_path):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    (finished.final / "training_args.bin").write_bytes(b"a pickle")
    (finished.final / "link.json").symlink_to("/etc/passwd")
    pack(finished, tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "model")
        texts = "".join(archive.read(name).decode() for name in names if not name.endswith(".safetensors"))
    assert {"README.md", "config.json", "model.safetensors", "tokenizer_config.json", "run/metrics.csv"} <= set(names)
    assert {Path(name).suffix for name in names} <= {".safetensors", ".json", ".md", ".yaml", ".csv", ".txt"}
    assert "secret-place" not in texts
    assert "root:" not in texts

    model = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "model", use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    trained, loaded = load_file(finished.final / "model.safetensors"), model.state_dict()
    assert trained.keys() <= loaded.keys()
    assert all(torch.equal(loaded[name], value) for name, value in trained.items())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model", trust_remote_code=False, local_files_only=True)
    assert model.generate(**tokenizer("What is 1 + 1?", return_tensors="pt"), max_new_tokens=3).shape[0] == 1

    card = (tmp_path / "model" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
    assert "| figure | before | after | change (95% interval) |" in card
    assert re.search(r"\| mean margin \| \S+ \| \S+ \| [+-]\S+ \([+-]\S+ to [+-]\S+\) \|", card)
    assert re.search(r"\| preference accuracy \| \S+ \| \S+ \| [+-]\S+( \(.*\))? \|", card)
    assert "| pairs | 4 | 4 | – |" in card
    assert (
        "Left out of this archive, since they are no safetensors, JSON or text: `link.json`, `training_args.bin`."
        in card
    )
    assert "python -m stepwise_dpo train --loss dpo --model tiny --data pairs.json" in card
    assert "AutoModelForSeq2SeqLM.from_pretrained" in card
    assert yaml.safe_load((tmp_path / "model" / "run" / "config.yaml").read_text())["max_steps"] == 2


def test_without_a_model_there_is_nothing_to_pack(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create(make_config({"data": "x.json"}))
    with pytest.raises(RunError, match="has no model to download"):
        pack(run, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_full_disk_leaves_no_half_archive(finished, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.zipfile.ZipFile, "write", full)
    with pytest.raises(RunError, match="No space left"):
        pack(finished, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()
