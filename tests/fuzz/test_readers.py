"""No reader of outside text lets another error out than this package's own, and none takes long.

STEPWISE_DPO_FUZZ=N multiplies the number of examples; `coverage_guided.py` looks further.
"""

import datetime
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from endpoint_readers import NAMES as ENDPOINTS  # beside this file; tests are no package
from endpoint_readers import PARAMETERS
from environment_readers import VARIABLES
from readers import Readers, survives

TIMES = float(os.environ.get("STEPWISE_DPO_FUZZ", "1"))

# fmt: off
KEYS = st.sampled_from([
    "prompt", "chosen", "rejected", "id", "meta", "text", "label", "completions", "labels", "key", "index", "draft",
    "example", "sort", "page", "model", "set", "run", "tab", "loss", "epochs", "max_steps", "learning_rate",
    "loss_type", "eval_data", "batch_size", "seed", "preset", "save_steps", "state", "pid", "create_time",
    "global_step", "phase", "started", "updated", "error", "time", "owner", "server", "server_create_time", "before",
    "after", "solve_rate", "preference_accuracy", "version", "open", "sets", "name", "file", "sha256", "size", "files",
    "data", "is_encoder_decoder", "chosen_steps", "chosen_labels", "rejected_steps", "rejected_labels",
    "chosen_step_logps", "rejected_step_logps", "before_answer",
])
TEXT = st.text(st.characters(), max_size=12) | st.sampled_from([
    "", "dpo", "stepwise", "finished", "running", "queued", "open.json", "open.json\n1", "number", "prompt", "tiny",
    "..", "/etc/passwd", "a\0b", "\ud800", "\u202e", "1e5", "9" * 5000, "0x" + "f" * 5000, "nan", "=1+1", "x" * 400,
])
# fmt: on
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXT
    | st.sampled_from([10**400, -(10**400), 2**63, 1e308, -0.0, -100, 10**4299])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS | TEXT, inner, max_size=6), max_leaves=14
)

STEP = st.fixed_dictionaries({"text": TEXT | SCALARS}, optional={"label": SCALARS, "more": SCALARS}) | TEXT | VALUES
SIDE = st.lists(STEP, max_size=4) | TEXT
DRAFT = st.fixed_dictionaries({"prompt": TEXT | SCALARS, "chosen": SIDE, "rejected": SIDE})
ROW = st.fixed_dictionaries(
    {"prompt": TEXT, "chosen": SIDE, "rejected": SIDE}, optional={"id": SCALARS, "meta": VALUES}
) | st.fixed_dictionaries({"prompt": TEXT, "completions": st.lists(TEXT | SCALARS), "labels": st.lists(SCALARS)})
STATUS = st.fixed_dictionaries(
    {"state": st.sampled_from(["finished", "running", "queued", "failed", "starting"]) | SCALARS},
    optional=dict.fromkeys(
        ("pid", "create_time", "global_step", "max_steps", "phase", "started", "updated", "error"), SCALARS
    ),
)
METRICS = st.fixed_dictionaries({"global_step": SCALARS, "time": SCALARS, "loss": SCALARS}) | VALUES
NAMES = ["solve_rate", "preference_accuracy", "pairs", "answers", "solve_rate/low", "solve_rate/high"]
FIGURES = st.dictionaries(st.sampled_from(NAMES), SCALARS) | VALUES
REPORT = st.fixed_dictionaries({"before": FIGURES, "after": FIGURES}, optional={"change": FIGURES})
TICKET = st.fixed_dictionaries({"owner": SCALARS, "server": SCALARS, "server_create_time": SCALARS})
ENTRY = st.fixed_dictionaries({"name": TEXT | SCALARS, "file": TEXT | SCALARS, "sha256": TEXT | SCALARS})
INDEX = st.fixed_dictionaries({"version": st.just(1) | SCALARS, "sets": st.lists(ENTRY | VALUES), "open": SCALARS})
MANIFEST = st.fixed_dictionaries({"files": st.dictionaries(TEXT, VALUES) | VALUES, "sha256": TEXT | SCALARS})

# fmt: off
YAML_SCALARS = st.sampled_from([
    "1e-4", "5e-5", "3", "-1", ".inf", "0x" + "f" * 5000, "1:59:59", "2024-13-45", "!!timestamp x", "!!bool maybe",
    "!!int ''", "!!float x", "!!binary '*'", "!!python/object:os.system x", "&a [*a]", "*b", "[[[", "{? [a] : b}",
    "<<: 1", "'\\0'", "=", "~", "yes", "no", "9" * 5000, "!!null x", "!!set {a}", "!!omap [a]", "\t", "\x00", "\ud800",
])
# fmt: on
YAML = st.lists(
    st.tuples(
        KEYS | st.sampled_from(["gradient_accumulation", "nonpositive", "<<", "1", "? [a]"]), YAML_SCALARS | TEXT
    ),
    max_size=4,
).map(lambda lines: "\n".join(f"{name}: {value}" for name, value in lines).encode("utf-8", "surrogatepass"))


def written(values):
    """Values as a file's bytes; what JSON can't hold is written as Python's own json would, or left."""
    return values.map(
        lambda value: json.dumps(value).encode("utf-8", "surrogatepass") if _short(value) else b"9" * 5000
    )


def _short(value):
    """Whether Python can write all integers in it."""
    if isinstance(value, int):
        return abs(value) < 10**4000
    if isinstance(value, dict):
        return all(map(_short, value.values()))
    return all(map(_short, value)) if isinstance(value, list) else True


def lines(values):
    return st.lists(written(values), max_size=4).map(b"\n".join)


NOISE = st.binary(max_size=60) | written(VALUES)
INPUTS = {
    "pairs of JSON": written(st.lists(ROW, max_size=3)),
    "pairs of JSON Lines": lines(ROW),
    "a file of pairs": written(st.lists(ROW, max_size=3)),
    "labelled solutions": lines(ROW),
    "labelled solutions of JSON": written(st.lists(ROW, max_size=3)),
    "an upload": lines(ROW),
    "a configuration file": YAML,
    "other settings": YAML,
    "other settings of the form": YAML,
    "config.json": written(st.fixed_dictionaries({"data": TEXT, "loss": st.just("dpo")}, optional={"epochs": SCALARS})),
    "status.json": written(STATUS),
    "metrics.jsonl": lines(METRICS),
    "report.json": written(REPORT),
    "ticket.json": written(TICKET),
    "examples.jsonl": lines(VALUES),
    "checkpoint-2/manifest.json": written(MANIFEST),
    "index.json": written(INDEX),
    "a saved draft": st.fixed_dictionaries({"key": TEXT, "index": SCALARS, "draft": DRAFT | VALUES}),
    "a draft of the open example": DRAFT,
    "a draft to check": DRAFT,
    "a draft to count": st.fixed_dictionaries({"model": st.just("tiny") | SCALARS, "draft": DRAFT | VALUES}),
    "a recipe": st.lists(VALUES, min_size=8, max_size=8),
    "the Train form": st.lists(VALUES, min_size=20, max_size=20),
}
ARGUMENTS = {
    **dict.fromkeys(("rows", "other", "held_out"), st.lists(ROW, max_size=3)),
    **dict.fromkeys(("steps", "prompts"), st.lists(TEXT | st.just("1 + 1?"), max_size=4)),
    **dict.fromkeys(("families", "corruptions", "avoid"), st.lists(TEXT | SCALARS, max_size=3)),
    "settings": st.dictionaries(KEYS | st.sampled_from(["max_length", "beta", "reward_value"]), SCALARS, max_size=4),
    "text": written(st.lists(ROW, max_size=3)).map(lambda data: data.decode("utf-8", "surrogatepass")),
    **dict.fromkeys(("value", "aggregation"), st.sampled_from(["probability", "log_odds", "product", "min"])),
}
"""What an endpoint expects under a name; anything else is tried as well."""

FORMS = {"a recipe": 8, "the Train form": 20, "a view of rewards": 3, "a comparison": 4, "typed text": 2}
"""How many fields; mostly one at a time is sent, since the first bad one ends it."""

NAMES = {
    "examples": [
        *("pairs of JSON", "pairs of JSON Lines", "a file of pairs", "labelled solutions"),
        *("labelled solutions of JSON", "an upload"),
    ],
    "settings": ["a configuration file", "other settings of the form"],
    "runs": [
        *("config.json", "status.json", "metrics.jsonl", "report.json", "ticket.json", "notes.txt", "rewards.json"),
        *("environment.json", "examples.jsonl", "events.log", "final/config.json", "checkpoint-2/manifest.json"),
    ],
    "workspace": ["index.json"],
    "browser": [
        *("a saved draft", "a draft of the open example", "a draft to check", "a draft to count", "a click in a list"),
        *("a click in the table", "a recipe", "a set's name", "a format's name", "an index", "an address"),
        *("the Train form", "a preset's name", "a run's id", "a run's id to show", "a run to draw", "a note"),
        *("a visitor", "a model's name", "typed text", "a typed problem", "a view of rewards", "a comparison"),
        *("settings of a run", "settings of a judge", "a request's body"),
    ],
    "api": ENDPOINTS,
    "environment": list(VARIABLES),
}
REFUSED = {
    **dict.fromkeys(("start_run", "rerun_run"), "the process could not be started"),  # as this test has it
    "resume_run": "has finished; there is nothing left to train",
    "compare": "these runs measured different examples, or none",
}
EXAMPLES = {"runs": 20, "workspace": 40, "api": 20}
"""How many, where it isn't 60: these take the longest."""


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    memory = Path("/dev/shm")  # what is read here is small, and written thousands of times
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield Readers(tmp_path_factory.mktemp("readers"))
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Readers(Path(folder))


def inputs_of(family, name):
    if family == "environment":
        return st.lists(TEXT | st.sampled_from(["1", "2", "0", "runs", "x" * 5_000, "/proc/1/fd"]), max_size=3).map(
            "\n".join
        )
    if family == "api":
        places = [ARGUMENTS.get(parameter.name, VALUES) | VALUES for parameter in PARAMETERS[name]]
        one = st.one_of(st.just({}), *(place.map(lambda value, i=i: {i: value}) for i, place in enumerate(places)))
        return one | st.tuples(*places).map(lambda all: dict(enumerate(all)))
    if family != "browser":
        return st.one_of(INPUTS.get(name, NOISE), NOISE)
    if name in FORMS:
        number = st.integers(0, FORMS[name] - 1)
        return st.one_of(
            st.tuples(number, VALUES).map(lambda one: {one[0]: one[1]}),
            st.lists(VALUES, max_size=FORMS[name]).map(lambda all: dict(enumerate(all))),
        )
    return st.one_of(INPUTS.get(name, VALUES), VALUES, st.dictionaries(KEYS, VALUES, max_size=3))


@pytest.mark.parametrize(
    ("family", "name", "given_"),
    [
        ("browser", "a recipe", {4: 10**400}),
        ("browser", "the Train form", {6: 10**400}),
        ("browser", "a visitor", "\ud800" * 43),
        ("browser", "a format's name", {}),
        ("browser", "a preset's name", []),
        ("browser", "settings of a run", {"epochs": 10**400}),
        ("browser", "settings of a run", {"seed": 16**5000}),
        ("settings", "a configuration file", b"data: 2024-13-45"),
        ("settings", "a configuration file", b"data: !!bool maybe"),
        ("settings", "a configuration file", b"data: !!timestamp x"),
        ("settings", "a configuration file", b"data: a\nseed: 0x" + b"f" * 5000),
        ("settings", "other settings of the form", b"beta: !!int ''"),
        ("runs", "metrics.jsonl", b'null\n{"global_step": null}\n{"global_step": 1, "time": "x", "loss": 1}\n'),
        ("runs", "metrics.jsonl", b'{"time": 2.5, "loss": 0.5}\n' * 4),
        ("runs", "metrics.jsonl", b'{"global_step": 1, "time": 1e308, "loss": 0.5}\n' * 4),
        ("runs", "status.json", b'{"state": "running", "pid": -1, "create_time": 1}'),
        ("runs", "status.json", b'{"state": "finished", "updated": "x"}'),
        ("runs", "ticket.json", b'{"owner": 1, "server": -1, "server_create_time": "x"}'),
        ("runs", "report.json", b'{"before": {"solve_rate": "x"}, "after": []}'),
        ("runs", "final/config.json", b"[]"),
        ("workspace", "index.json", b"[" * 100_000),
        (
            "workspace",
            "index.json",
            b'{"version": 1, "open": 1, "sets": [{"name": "\\ud800", "file": "", "sha256": ""}]}',
        ),
        (
            "workspace",
            "index.json",
            b'{"version": 1, "open": 1, "sets": [{"name": "a", "file": "\\u0000", "sha256": ""}]}',
        ),
    ],
)
def test_what_was_found_once(readers, family, name, given_):
    survives(readers.families[family][name], given_)


def test_every_reader_is_tried(readers):
    assert {family: list(known) for family, known in readers.families.items()} == NAMES


def test_sound_arguments_reach_what_an_endpoint_does(readers):
    """Else junk in one place would be refused because of another."""
    said = {name: survives(lambda _, name=name: readers.endpoints.call_locally(name), {}) for name in ENDPOINTS}
    refused = {name: str(error) for name, error in said.items() if error is not None}
    for name, words in REFUSED.items():
        assert words in refused.pop(name)
    assert refused == {}


@pytest.mark.parametrize(
    ("family", "name", "examples"),
    [
        pytest.param(family, name, EXAMPLES.get(family, 60), id=f"{family}: {name}")
        for family, names in NAMES.items()
        for name in names
    ],
)
def test_only_our_errors_come_out(readers, family, name, examples):
    reader = readers.families[family][name]
    if family == "api":
        survives(reader, {})  # to import torch takes longer than an example may

    @settings(
        max_examples=max(1, int(examples * TIMES)),
        deadline=datetime.timedelta(seconds=3),
        derandomize=TIMES == 1,  # a build that fails shall fail for whoever looks into it
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(inputs_of(family, name))
    def try_it(given_):
        survives(reader, given_)

    try_it()
