"""What the README says is checked against what is there."""

import json
import re
import shlex
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import stepwise_dpo
from stepwise_dpo.cli import build_parser
from stepwise_dpo.preferences.pairs import parse_pairs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BASH = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.strip().splitlines()]
COMMANDS = [line for line in BASH if "-m stepwise_dpo" in line]


def test_space_front_matter():
    card = yaml.safe_load(README.split("---")[1])
    assert card["sdk"] == "gradio"
    assert card["sdk_version"] == version("gradio")
    assert (ROOT / card["app_file"]).is_file()
    assert len(card["short_description"]) <= 60  # Spaces refuse longer ones
    assert {"title", "emoji", "colorFrom", "colorTo", "python_version", "tags", "models", "license"} <= card.keys()


def test_requirements_pin_what_is_installed():
    pinned = dict(re.findall(r"^(torch|gradio)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert version("torch").split("+")[0] == pinned["torch"]
    assert version("gradio") == pinned["gradio"]


def test_ci_runs_exactly_the_readmes_test_command():
    (command,) = [line for line in BASH if "pytest" in line]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_accepted(command):
    words = shlex.split(command)
    build_parser().parse_args(words[words.index("stepwise_dpo") + 1 :])


def test_mentioned_options_exist():
    help_texts = "\n".join(_help_texts(build_parser()))
    app = (ROOT / "app.py").read_text(encoding="utf-8")
    for option in set(re.findall(r"`(--[a-z][a-z-]+)", README)):
        assert option in help_texts + app, option


def _help_texts(parser):
    yield parser.format_help()
    for action in parser._actions:
        if action.choices and isinstance(action.choices, dict):
            for child in action.choices.values():
                yield from _help_texts(child)


def test_the_example_record_is_valid():
    (record,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    (pair,) = parse_pairs(f"[{record}]", "README.md")
    assert pair.rejected[1].label is False
    assert json.loads(record)["prompt"] == pair.prompt


PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", [code for code in PYTHON if "gradio_client" not in code])
def test_the_python_examples_run(code, tmp_path, monkeypatch):
    code = code.replace("data/synthetic_prm.json", str(ROOT / "data" / "synthetic_prm.json"))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["trainer"].state.global_step == 10


@pytest.mark.parametrize("code", [code for code in PYTHON if "gradio_client" in code])
def test_the_api_example_runs(code, tmp_path):
    from stepwise_dpo.runs.supervisor import Supervisor
    from stepwise_dpo.ui.page import build_app, launch_options

    supervisor = Supervisor(tmp_path / "runs")
    demo = build_app(supervisor)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        names = {}
        exec(code.replace("http://127.0.0.1:7860", url), names)
        run = supervisor.run(names["run"]["run_id"])
        assert (run.config().model, run.config().max_steps) == ("policy", 20)
    finally:
        for run in supervisor.runs():
            supervisor.stop(run)
        demo.close(verbose=False)


def test_every_case_of_the_table_has_a_test():
    (table,) = re.findall(r"^## Reliability\b.*?(?=^## )", README, re.MULTILINE | re.DOTALL)
    cases = re.findall(r"^\| (\d\d) \|", table, re.MULTILINE)
    assert cases == [f"{number:02}" for number in range(1, 25)]
    names = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for case in cases:
        assert re.search(rf"def test_(case_\d\d_)*case_{case}_", names), case  # as `pytest -k` finds it


def test_pictures_and_files_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).is_file(), path
    for path in set(re.findall(r"(?:data|stepwise_dpo)/[\w/]+(?:\.json|\.md)?", README)):
        assert (ROOT / path).exists() or path.startswith("data/pictures"), path


def test_version_is_in_the_changelog():
    assert f"## {stepwise_dpo.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
