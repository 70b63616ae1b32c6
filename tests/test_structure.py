"""The house plan, checked: who imports whom, what is public, what an import costs."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import stepwise_dpo

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "stepwise_dpo"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A folder imports only to its right. `cli` and `bench` may import all of them.
DIRECTION = ["ui", "runs", "learning", "preferences", "errors"]


def imports(path):
    """Full names of everything that a file imports, wherever in the file, outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name):
    parts = name.split(".")
    return parts[1] if parts[0] == "stepwise_dpo" and len(parts) > 1 and parts[1] in DIRECTION else None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_directions(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own not in DIRECTION:
        assert own in ("__init__", "__main__", "cli", "bench"), f"{path} belongs to no layer"
        return
    for name in imports(path):
        if (other := layer(name)) is not None:
            assert DIRECTION.index(other) >= DIRECTION.index(own), f"{path.name} imports {name}"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("gradio", ["ui/"]),
        ("trl", ["learning/trainer.py", "learning/step_dataset.py"]),
        ("subprocess", ["runs/supervisor.py", "bench/"]),
        ("torch", ["learning/", "runs/training.py", "cli/", "bench/"]),
    ],
)
def test_who_may_import_what(library, allowed):
    users = [path for path in MODULES if any(name.split(".")[0] == library for name in imports(path))]
    assert users, f"nobody imports {library}: this test would prove nothing"
    for path in users:
        where = path.relative_to(PACKAGE).as_posix()
        assert any(where.startswith(prefix) for prefix in allowed), f"{where} imports {library}"


@pytest.mark.parametrize("module", ["losses", "seq2seq"])
def test_pure_modules_import_nothing_of_ours(module):
    assert not [name for name in imports(PACKAGE / "learning" / f"{module}.py") if name.startswith("stepwise_dpo")]


def test_the_supervisor_never_imports_training():
    assert not [name for name in imports(PACKAGE / "runs" / "supervisor.py") if "training" in name]


DISTRIBUTIONS = {"yaml": "pyyaml", "sklearn": "scikit-learn", "pydantic_core": "pydantic", "gradio_client": "gradio"}
"""Of which an import is a part, where the name doesn't say it; the last two are pinned by theirs to one version."""

NOT_INSTALLED = {"atheris"}
"""What only a script imports that is no test, and says itself how it gets it."""


def declared(requirements):
    """Names of distributions, as the index spells them."""
    lines = [line.partition("#")[0].strip() for line in requirements]
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in lines if line}


def undeclared(paths, known):
    tops = {(path, name.split(".")[0]) for path in paths for name in imports(path)}
    own = {"stepwise_dpo", *(path.stem for path in (ROOT / "tests").rglob("*.py"))} | NOT_INSTALLED
    foreign = [(path, top) for path, top in tops if top not in sys.stdlib_module_names | own]
    assert len(foreign) > 5, "nothing is imported: this test would prove nothing"
    return {
        (path.relative_to(ROOT).as_posix(), top)
        for path, top in foreign
        if DISTRIBUTIONS.get(top, top).lower().replace("_", "-") not in known
    }


def test_what_is_imported_is_declared_and_nothing_more():
    needed = (ROOT / "requirements.txt").read_text().splitlines()
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["test"]
    benches = [path for path in MODULES if PACKAGE / "bench" in path.parents]
    package = [*(path for path in MODULES if path not in benches), ROOT / "app.py"]
    assert undeclared(package, declared(needed)) == set()
    # A bench that drives a browser says that it needs the tests' extra.
    others = [*benches, *sorted((ROOT / "tests").rglob("*.py"))]
    assert undeclared(others, declared([*needed, *extra])) == set()
    used = {
        DISTRIBUTIONS.get(name.split(".")[0], name.split(".")[0])
        for path in package + benches
        for name in imports(path)
    }
    assert declared(needed) <= {name.lower().replace("_", "-") for name in used}


def test_every_requirement_has_a_lower_bound():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if (requirement := line.partition("#")[0].strip()) != "":
            assert re.search(r"(==|~=|>=)\d", requirement), f"{requirement} has no lower bound"


def test_public_names():
    assert stepwise_dpo.__all__ == sorted(stepwise_dpo.__all__)
    for name in stepwise_dpo.__all__:
        assert getattr(stepwise_dpo, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        stepwise_dpo.nonsense  # noqa: B018


def test_an_import_pulls_in_nothing_heavy():
    code = (
        "import sys, stepwise_dpo, stepwise_dpo.cli\n"
        "heavy = {'torch', 'gradio', 'trl', 'transformers', 'datasets', 'pandas', 'numpy'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
