"""The endpoints, called as a program would: a real server, `gradio_client`, real worker processes."""

import json
import math
import re
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client
from gradio_client.exceptions import AppError

from stepwise_dpo.learning.evaluation import pair_logps
from stepwise_dpo.learning.loading import load_policy
from stepwise_dpo.learning.names import DATA_DIR
from stepwise_dpo.preferences.pairs import PreferencePair, parse_pairs
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.discarding import FILE as DISCARDED
from stepwise_dpo.runs.limits import QueueLimits
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.ui.api import Endpoints, _fault
from stepwise_dpo.ui.data_actions import to_avoid
from stepwise_dpo.ui.page import build_app, bundled_library, launch_options
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.train_words import BUILT_IN_PACES

ROWS = [
    {"id": str(n), "prompt": f"{n} + 1?", "chosen": [{"text": f"{n} + 1 = {n + 1}", "label": True}],
     "rejected": [{"text": f"{n} + 1 = {n + 3}", "label": False}]}
    for n in range(4)
]  # fmt: skip
LONG_ROWS = [*ROWS[:3], {**ROWS[3], "rejected": ["1" * 20_000]}]
TINY_RUN = {"model": "tiny", "max_steps": 2, "batch_size": 2, "generate": 0}
LONG_RUN = {**TINY_RUN, "model": "policy", "max_steps": 500, "batch_size": 4}  # still at work when all was tried on it
BUNDLED_FOLDER = Path(__file__).parents[2] / "data" / "models" / "policy"
ANNA, BEN = "a" * 32, "b" * 43
RUNS_OF_LOCAL, RUNS_OF_PUBLIC = [], []
ENDED = ("finished", "stopped", "failed", "interrupted")


def served(folder, public):
    supervisor = Supervisor(folder, queue_limits=QueueLimits(per_owner=2 if public else None))
    demo = build_app(supervisor, public=public)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options(public))
    return demo, Client(url, verbose=False), supervisor


def closed(demo, supervisor):
    for run in supervisor.runs():
        supervisor.stop(run)
    demo.close(verbose=False)
    supervisor.close()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "runs"
    RUNS_OF_LOCAL.append(folder)
    demo, client, supervisor = served(folder, False)
    yield client
    closed(demo, supervisor)


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api-public") / "runs"
    RUNS_OF_PUBLIC.append(folder)
    demo, client, supervisor = served(folder, True)
    yield client
    closed(demo, supervisor)


def left_behind(runs):
    """What there is beside runs, of which there are none: no example of theirs either."""
    return sorted(path.name for path in runs[0].rglob("*") if path.is_file())


def call(client, name, *args, **named):
    return client.predict(*args, **named, api_name=f"/{name}")


def wait(client, run_id, visitor=""):
    for _ in range(600):
        status = call(client, "run_status", run_id, visitor=visitor)
        if status["state"] in ENDED:
            return status
        time.sleep(0.1)
    raise AssertionError(f"still {status}")


def test_every_endpoint_says_what_it_does_and_nothing_else_has_a_name(local):
    named = local.view_api(return_format="dict", print_info=False)["named_endpoints"]
    functions = {f"/{name}" for name in vars(Endpoints) if not name.startswith("_")}
    assert set(named) == functions | {"/run_model"}
    assert all(len(endpoint["description"]) > 20 for endpoint in named.values())


BY_NAME = {
    "Data: choose a set": "examples",
    "Data: upload": "validate",
    "Data: generate": "generate",
    "Data: download": "convert",
    "Data: statistics, prompts of other sets": "statistics",
    "Data: tokens of a draft": "count_tokens",
    "Rewards and Compare: the checker's verdict": "check_steps",
    "Train: steps and time before the click": "plan_run",
    "Train: start": "start_run",
    "Train: table of runs": "runs",
    "Train: where a run stands, load into form": "run_status",
    "Train: curves": "run_metrics",
    "Train: the log of a run that failed": "run_log",
    "Train: stop and keep": "stop_run",
    "Train: discard": "discard_run",
    "Train: resume": "resume_run",
    "Train: run again": "rerun_run",
    "Train: delete": "delete_run",
    "Train: note": "note_run",
    "Train: take along, commands and configuration": "run_commands",
    "Train: take along, model": "run_model",
    "Rewards: score the set": "score_pairs",
    "Rewards: agreement of a set": "agreement",
    "Rewards: score a typed solution": "score_steps",
    "Rewards: log-probabilities and gap of a policy": "step_logps",
    "Compare: numbers": "compare",
    "Compare: examples, download": "run_examples",
    "Compare: let both answer": "answer",
}


def test_each_action_of_the_page_has_an_endpoint_and_each_endpoint_an_action(local):
    named = local.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == {f"/{name}" for name in BY_NAME.values()} | {"/example_sets"}  # which sets there are to choose


def test_examples_are_listed_checked_generated_converted_and_counted(local):
    names = [known["name"] for known in call(local, "example_sets")]
    assert "heldout_prm.json" in names
    rows = call(local, "examples", "heldout_prm.json", start=1, count=2)
    assert len(rows) == 2
    assert rows[0]["chosen"][0]["text"]
    assert call(local, "validate", json.dumps(rows)) == {"examples": 2, "remarks": []}
    same = [{**ROWS[0], "rejected": ROWS[0]["chosen"]}]
    found = call(local, "validate", json.dumps(same))["remarks"]
    assert found[0]["id"] == "0"
    assert found[0]["remarks"]
    made = call(local, "generate", 3, seed=5, families=["shopping"])
    assert len(made) == 3
    assert made == call(local, "generate", 3, seed=5, families=["shopping"])
    assert to_avoid(bundled_library(DATA_DIR)) == ["onpolicy_heldout_prm.json", "heldout_prm.json"]
    held_out = {row["prompt"] for row in call(local, "examples", "heldout_prm.json", count=1_000)}
    same_seed = {"seed": 1007, "fewest_steps": 2, "most_steps": 6}  # as data/README.md says
    assert all(row["prompt"] in held_out for row in call(local, "generate", 6, avoid=[], **same_seed))
    for avoid in ({}, {"avoid": ["onpolicy_prm.json", "heldout_prm.json"]}):
        assert not any(row["prompt"] in held_out for row in call(local, "generate", 6, **avoid, **same_seed))
    file = call(local, "convert", ROWS, format="trl-preference")
    assert json.loads(file["text"].splitlines()[0])["chosen"]
    counted = call(local, "statistics", [*ROWS, rows[0]], other=ROWS[:1])
    assert counted["pairs"] == 5
    assert counted["shared_prompts"] == {"heldout_prm.json": 1, "other": 1}
    assert call(local, "statistics", ROWS)["shared_prompts"] == {}


def test_steps_are_scored(local):
    scores = call(local, "score_steps", "What is 3 + 4?", ["3 + 4 = 7"])
    assert len(scores) == 1
    assert -1 <= scores[0] <= 1
    example = call(local, "examples", "heldout_prm.json", count=1)
    judged = call(local, "score_pairs", example)[0]
    assert len(judged["chosen"]) == len(example[0]["chosen"])
    assert judged["preference"] == pytest.approx(sum(judged["chosen"]) - sum(judged["rejected"]))
    named = {"value": "probability", "aggregation": "product"}
    product = call(local, "score_pairs", example, **named)[0]
    assert product["preference"] == pytest.approx(math.prod(product["chosen"]) - math.prod(product["rejected"]))
    until = call(local, "score_pairs", example, value="probability", aggregation="until_error")[0]
    wrong = next(i for i, p in enumerate(until["rejected"]) if p < 0.5)
    assert wrong + 1 < len(until["rejected"])  # else it would be the sum
    assert until["preference"] == pytest.approx(sum(until["chosen"]) - sum(until["rejected"][: wrong + 1]))
    held_out = call(local, "examples", "heldout_prm.json", count=30)
    agreed = call(local, "agreement", held_out)
    assert agreed["examples"] == 30
    assert agreed["positive"] >= 27
    assert agreed["f1"] > 90
    assert agreed["auroc"] > 0.97
    assert agreed["flat"] is False
    unlabelled = [{**row, "chosen": ["1"], "rejected": ["2"]} for row in held_out[:2]]
    assert call(local, "agreement", unlabelled)["f1"] is None
    logps = call(local, "step_logps", example)[0]
    policy = load_policy("policy")
    (both,) = pair_logps(policy, parse_pairs(json.dumps(example), "example"))
    assert logps["margin"] == pytest.approx(both.chosen.mean - both.rejected.mean, abs=1e-5)
    assert all(value < 0 for value in logps["chosen"])
    assert len(logps["rejected"]) == len(example[0]["rejected"])


def test_the_reward_model_that_a_run_trained_judges(local):
    settings = {
        **TINY_RUN,
        "loss": "stepwise",
        "reward_model": "tiny",
        "train_reward_model": True,
        "learning_rate": 0.01,
    }
    run_id = call(local, "start_run", settings, ROWS)["run_id"]
    assert wait(local, run_id)["state"] == "finished"
    before, after = (call(local, "score_pairs", ROWS, "tiny", **which) for which in ({}, {"run_id": run_id}))
    moved = [
        abs(new - old)
        for row, was in zip(after, before, strict=True)
        for new, old in zip(row["rejected"], was["rejected"], strict=True)
    ]
    assert max(moved) > 1e-4
    assert call(local, "agreement", ROWS, run_id=run_id)["examples"] == 4
    call(local, "delete_run", run_id)


def test_tokens_and_the_checker(local, public):
    row = call(local, "examples", "heldout_prm.json", count=1)[0]
    counted = call(local, "count_tokens", row)
    assert [len(counted[side]) for side in ("chosen", "rejected")] == [len(row["chosen"]), len(row["rejected"])]
    tokenizer = load_policy("policy").tokenizer
    assert counted["prompt"] == len(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"])
    assert "is not on this machine" in call(local, "count_tokens", row, "google/flan-t5-small")["problem"]
    assert "must be one of" in call(public, "count_tokens", row, "./reward")["problem"]
    for side, solved in (("chosen", True), ("rejected", False)):
        checked = call(local, "check_steps", row["prompt"], [step["text"] for step in row[side]])
        assert (checked["known"], checked["solved"]) == (True, solved)
        assert checked["steps"] == [step["label"] for step in row[side]]
    assert call(local, "check_steps", "Why?", ["2"]) == {"known": False, "steps": None, "solved": None}
    with pytest.raises(AppError, match="steps"):
        call(local, "check_steps", row["prompt"], [])


def test_a_run_from_start_to_delete(local, tmp_path):
    settings = {**TINY_RUN, "max_steps": 4}
    guess = BUILT_IN_PACES["tiny"].seconds(4, 2)
    planned = {"max_steps": 4, "pairs_per_step": 2, "seconds": guess, "measured": False}
    assert call(local, "plan_run", settings, 4) == planned
    unknown = call(local, "plan_run", {**settings, "model": "google/flan-t5-small"}, 4)
    assert (unknown["seconds"], unknown["measured"]) == (None, None)
    run_id = call(local, "start_run", settings, ROWS, held_out=ROWS[:2])["run_id"]
    status = wait(local, run_id)
    assert (status["state"], status["global_step"]) == ("finished", 4), status
    assert status["config"]["model"] == "tiny"
    assert "/" not in status["config"]["data"]
    assert {"before", "after"} <= set(status["report"])
    first = call(local, "run_metrics", run_id)
    assert [record["global_step"] for record in first["records"] if "loss" in record] == [1, 2, 3, 4]
    assert call(local, "run_metrics", run_id, offset=first["offset"])["records"] == []
    assert len(call(local, "run_examples", run_id)) == 2
    by_epochs = {**settings, "max_steps": None, "epochs": 3.0}
    planned = call(local, "plan_run", by_epochs, 5)
    assert planned["measured"]
    assert (planned["max_steps"], planned["pairs_per_step"]) == (9, 2)  # three batches of at most two, three times
    assert 0 < call(local, "plan_run", by_epochs, 1)["seconds"] < planned["seconds"] < 600
    compared = call(local, "compare", f"before:{run_id}", f"after:{run_id}")
    assert (compared["examples"], compared["trained_on"], compared["remarks"]) == (2, 2, [])
    figures = {figure["figure"]: figure for figure in compared["figures"]}
    assert set(figures) == {"preference_accuracy", "mean_margin", "logps_chosen", "logps_rejected"}
    for when in ("before", "after"):
        assert figures["mean_margin"][when]["value"] == pytest.approx(status["report"][when]["mean_margin"], abs=1e-6)
    low, high = figures["preference_accuracy"]["after"]["interval"]
    assert 0 <= low <= figures["preference_accuracy"]["after"]["value"] <= high <= 1
    change = {key: figures["mean_margin"][key]["value"] for key in ("before", "after", "change")}
    assert change["change"] == pytest.approx(change["after"] - change["before"])
    # Measured now, on what the run didn't hold out; the order is that of the rows.
    now = call(local, "compare", f"before:{run_id}", f"after:{run_id}", on=ROWS)
    assert (now["examples"], now["trained_on"]) == (4, 4)
    logps = [call(local, "step_logps", ROWS, "tiny", **which) for which in ({}, {"run_id": run_id})]
    means = [sum(row["margin"] for row in side) / len(side) for side in logps]
    change = next(figure for figure in now["figures"] if figure["figure"] == "mean_margin")["change"]["value"]
    assert change == pytest.approx(means[1] - means[0], abs=1e-5)
    with pytest.raises(AppError, match="measure 1 to 120 rows at once, not 0"):
        call(local, "compare", f"before:{run_id}", f"after:{run_id}", on=[])
    assert any("saving" in line for line in call(local, "run_log", run_id))
    for name, args in (("score_pairs", [ROWS]), ("agreement", [ROWS])):
        with pytest.raises(AppError, match="trained no reward model"):
            call(local, name, *args, run_id=run_id)
    with pytest.raises(AppError, match="both sides are the same model"):
        call(local, "compare", f"after:{run_id}", f"after:{run_id}")
    commands = call(local, "run_commands", run_id)
    assert "--model tiny" in commands["command"]
    assert "accelerate launch" in commands["accelerate"]
    assert call(local, "note_run", run_id, " a \n try ")["note"] == "a try"  # as it is stored
    archive = call(local, "run_model", run_id, "")
    assert Path(archive).name == f"{run_id}.zip"
    assert any(name.endswith(".safetensors") for name in zipfile.ZipFile(archive).namelist())
    assert len(call(local, "answer", ["What is 3 + 4?"], run_id=run_id)) == 1
    assert call(local, "step_logps", ROWS[:1], run_id=run_id)[0]["chosen"]
    with pytest.raises(AppError, match="finished"):
        call(local, "resume_run", run_id)
    assert call(local, "stop_run", run_id)["state"] == "finished"
    assert call(local, "runs")[0]["run_id"] == run_id
    assert call(local, "delete_run", run_id) == {"deleted": run_id}
    assert call(local, "runs") == []


def test_a_run_is_repeated_as_it_was_and_discarded_while_it_trains(local):
    settings = {**TINY_RUN, "max_steps": 5_000, "learning_rate": 3e-4}
    first = call(local, "start_run", settings, ROWS, held_out=ROWS[:1])["run_id"]
    again = call(local, "rerun_run", first)["run_id"]
    assert again != first
    assert call(local, "run_status", again)["config"] == call(local, "run_status", first)["config"]
    for run_id in (again, first):  # one waits for its turn, one is at work
        assert call(local, "run_status", run_id)["state"] not in ENDED
        assert call(local, "discard_run", run_id) == {"discarded": run_id}
    for _ in range(600):
        if not (left := call(local, "runs")):
            break
        time.sleep(0.1)
    assert left == []
    with pytest.raises(AppError, match="there is no run"):
        call(local, "rerun_run", first)


def test_whoever_lists_runs_deletes_the_discarded_ones_that_have_ended(tmp_path):
    for name in ("kept", "discarded"):
        run = RunDirectory(tmp_path / name)
        run.create(make_config({**TINY_RUN, "data": "pairs.json"}))
        run.write_status(RunStatus("stopped"))
    (tmp_path / "discarded" / DISCARDED).touch()  # its process ended after the request, and no page is open
    endpoints = Endpoints(None, RunReader(Supervisor(tmp_path)), None, None)
    assert [run["run_id"] for run in endpoints.runs()] == ["kept"]
    assert not (tmp_path / "discarded").exists()


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("score_steps", ["p", "no list"], "steps: .*list"),
        ("score_steps", ["p", []], "1 to 1,000 steps"),
        ("score_steps", ["p", ["a"] * 1001], "1 to 1,000 steps"),
        ("score_steps", ["p", ["a"], "nobody/nothing-here"], "nobody/nothing-here"),
        ("score_steps", ["p", ["a"], "reward", "stars"], "scale must be one of"),
        ("score_pairs", [[{"prompt": "p"}]], "row 1"),
        ("score_pairs", [ROWS * 600], "at most"),
        ("score_pairs", [ROWS, "reward", "centered", "median"], "aggregation must be one of sum, mean"),
        ("score_pairs", [ROWS, "reward", "centered", "product"], "needs reward value 'probability'"),
        ("examples", ["no such set"], "no such set"),
        ("validate", ["[" * 100_000], "text.json"),
        ("generate", [10_000_000], "examples"),
        ("generate", [3, 0, [], [], 3, 7, 100, ["x.json"]], "no example set 'x.json' to avoid"),
        ("convert", [ROWS, "xml"], "no format 'xml'"),
        ("start_run", [{**TINY_RUN, "learning_rate": -1.0}, ROWS], "learning_rate"),
        ("start_run", [{**TINY_RUN, "epochs": -1}, ROWS], "epochs"),
        ("start_run", [{**TINY_RUN, "learning_rte": 1.0}, ROWS], "learning_rate"),
        ("start_run", [{**TINY_RUN, "data": "/etc/passwd"}, ROWS], "leave data"),
        ("start_run", [{"preset": "none"}, ROWS], "unknown preset"),
        ("start_run", [TINY_RUN, []], "rows"),
        ("run_status", ["../x"], "there is no run"),
        ("run_metrics", ["x", "later"], "offset"),
        ("delete_run", ["\x00"], "there is no run"),
        ("rerun_run", ["../x"], "there is no run"),
        ("discard_run", ["x"], "there is no run"),
        ("plan_run", [TINY_RUN, 0], "plan 1 to 100,000 examples"),
        ("plan_run", [TINY_RUN, 10**400], "plan 1 to 100,000 examples"),
        ("plan_run", [{**TINY_RUN, "learning_rte": 1.0}, 4], "learning_rate"),
        ("plan_run", [{**TINY_RUN, "data": "/etc/passwd"}, 4], "leave data"),
        ("compare", ["before:x", "after:x"], "there is no run 'x'"),
        ("compare", ["policy", "after:x"], "before:RUN_ID or after:RUN_ID, not 'policy'"),
        ("answer", [[]], "1 to 64 prompts"),
        ("answer", [["1 + 1?", "1" * 20_000]], "prompt 2 has 20,0.. tokens, .* at most 2,048"),
        ("answer", [["1 + 1?", "1" * 100_001]], "prompt 2 must have at most 100,000 characters"),
        ("step_logps", [LONG_ROWS], "example '3', rejected: .* 20,0.. tokens, .* at most 2,048"),
        ("score_pairs", [LONG_ROWS], "example '3', rejected: .*too long"),
        ("score_steps", ["p", ["1" * 100_001]], "have 100,002 characters, .* at most 100,000"),
    ],
)
def test_case_17_what_is_wrong_is_said_by_name(local, name, args, words):
    with pytest.raises(AppError, match=words):
        call(local, name, *args)
    assert call(local, "runs") == []
    assert left_behind(RUNS_OF_LOCAL) == []


def posted(client, name, arguments):
    """Call an endpoint with JSON as it stands, which no client would write: (status of the post, what was said)."""
    with httpx.Client(base_url=client.src, timeout=60) as http:
        body = arguments if isinstance(arguments, bytes) else f'{{"data": {arguments}}}'.encode()
        answer = http.post(f"gradio_api/call/{name}", content=body, headers={"content-type": "application/json"})
        if answer.status_code != 200:
            return answer.status_code, answer.json()["detail"]
        return 200, http.get(f"gradio_api/call/{name}/{answer.json()['event_id']}").text


NUMBER_OF_NO_RUN = {
    "learning_rate": ["NaN", "Infinity", "1e999", "-1e-5", "1e21"],
    "epochs": ["-1", "NaN"],
    "max_length": ["1000000000"],
    "batch_size": ["1000000000", "9" * 900],
    "gradient_accumulation": ["1000000000"],
    "beta": ["NaN", "-0.1"],
    "max_new_tokens": ["1000000000"],
}


NO_JSON = ("NaN", "Infinity", "1e999")


@pytest.mark.parametrize("setting", NUMBER_OF_NO_RUN)
def test_case_17_no_number_out_of_range_starts_a_run(local, setting):
    for number in NUMBER_OF_NO_RUN[setting]:
        settings = f'{{"model": "tiny", "{setting}": {number}}}'
        for name, more in (("start_run", f'{json.dumps(ROWS)}, null, ""'), ("plan_run", "4, 0")):
            status, said = posted(local, name, f"[{settings}, {more}]")
            if number in NO_JSON:
                assert (status, said.partition(",")[0]) == (
                    400,
                    f"the request: data[0].{setting} must be a finite number",
                )
            else:
                assert status == 200
                assert said.startswith("event: error\n"), said
                assert f"{setting}: " in said
    assert call(local, "runs") == []
    assert left_behind(RUNS_OF_LOCAL) == []


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("start_run", f"[{json.dumps(TINY_RUN)}, {DEEP}]", "the request: is nested too deeply"),
        ("convert", "[" * 100_000 + "]" * 100_000, "the request: is nested too deeply"),
        ("convert", "[" * 40 + "]" * 40, "the request: is nested more than 32 levels deep"),
        ("plan_run", f"[{{}}, {'9' * 5_000}]", "the request: has an integer of 5,000 digits; at most 1,000 are read"),
        ("convert", b'{"data": [', "the request: is not JSON: Expecting value at column 11"),
        ("convert", b'{"data": ["\xff"]}', "the request: is not UTF-8 text (byte 0xff at offset 11)"),
        ("convert", '[[{"prompt": "1", "prompt": "2"}]]', "the request: data[0][0].prompt is given twice"),
        ("start_run", '[{"epochs": 1, "epochs": 2}, []]', "the request: data[0].epochs is given twice"),
        (
            "score_pairs",
            '[[{"prompt": "1", "chosen": [{"text": "a", "label": true, "label": false}], "rejected": ["b"]}]]',
            "the request: data[0][0].chosen[0].label is given twice",
        ),
        ("plan_run", '[{"beta": NaN, "beta": 1}, 4]', "the request: data[0].beta is given twice"),
    ],
    ids=["objects", "lists", "a little", "digits", "half", "bytes", "rows", "settings", "steps", "hidden"],
)
def test_case_15_case_16_what_no_endpoint_could_see_is_refused_at_the_door_in_a_second(local, name, arguments, words):
    start = time.perf_counter()
    status, said = posted(local, name, arguments)
    assert time.perf_counter() - start < 1
    assert (status, said.partition("; leave one out")[0]) == (400, words)
    assert call(local, "validate", json.dumps(ROWS))["examples"] == len(ROWS)  # the server answers
    assert call(local, "runs") == []


def test_case_15_what_is_hostile_within_a_text_is_refused_by_the_endpoint_in_a_second(local):
    for text in ("[" * 100_000, DEEP, "[" + "9" * 5_000 + "]"):
        start = time.perf_counter()
        status, said = posted(local, "validate", json.dumps([text, False]))
        assert time.perf_counter() - start < 1
        assert (status, said[:13]) == (200, "event: error\n")
        assert "nested too deeply" in said or "an integer of 25 digits or more" in said
    assert call(local, "example_sets")


def test_case_15_what_is_too_large_is_refused_in_a_second_and_the_server_answers(local):
    too_large = b'{"data": ["' + b" " * 65 * 2**20 + b'"]}'
    sent = []

    def parts():
        for at in range(0, len(too_large), 2**20):
            yield too_large[at : at + 2**20]
        sent.append(time.perf_counter())  # how long the sending takes is not the server's doing

    with httpx.Client(base_url=local.src, timeout=60) as http:
        answer = http.post("gradio_api/call/validate", content=parts(), headers={"content-type": "application/json"})
        assert time.perf_counter() - sent[0] < 1
        assert (answer.status_code, answer.json()["detail"]) == (
            413,
            "the request is larger than 64 MiB; send less at once",
        )
        answer = http.post("gradio_api/upload", files={"files": ("large.json", too_large)})
        assert answer.status_code == 413
        assert "maximum allowed size" in answer.text
        # Not only the endpoints: what the page itself sends goes through the same door.
        for path in ("queue/join", "component_server", "run/predict", "cancel"):
            headers = {"content-type": "text/plain"}  # which isn't asked for everywhere
            answer = http.post(f"gradio_api/{path}", content=b'{"fn_index": 1, "fn_index": 2}', headers=headers)
            assert answer.status_code == 400
            assert answer.json() == {"detail": "the request: fn_index is given twice; leave one out"}
            assert answer.headers["x-content-type-options"] == "nosniff"
    assert call(local, "validate", json.dumps(ROWS))["examples"] == len(ROWS)


@pytest.mark.parametrize("label", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_case_15_case_16_json_that_is_labelled_as_a_form_is_checked_as_well(local, label):
    """Gradio reads some of it as JSON all the same; only an upload may be what the label says."""
    headers = {"content-type": label}
    form = b'--x\r\nContent-Disposition: form-data; name="fn_name"\r\n\r\nnewest\r\n--x--\r\n'
    with httpx.Client(base_url=local.src, timeout=60) as http:

        def answered(path, body):
            answer = http.post(f"gradio_api/{path}", content=body, headers=headers)
            return answer.status_code, answer.json()["detail"]

        for path in ("queue/join", "call/validate", "component_server", "run/upload", "process_recording"):
            twice = "the request: fn_index is given twice; leave one out"
            assert answered(path, b'{"fn_index": 1, "fn_index": 2}') == (400, twice)
            for number in NO_JSON:
                status, said = answered(path, f'{{"data": [{number}]}}'.encode())
                assert (status, said.partition(",")[0]) == (400, "the request: data[0] must be a finite number")
            status, said = answered(path, form)
            assert (status, said[:24]) == (400, "the request: is not JSON")
        too_large = b'{"data": ["' + b" " * 65 * 2**20 + b'"]}'
        for path in ("queue/join", "call/validate", "component_server"):
            assert answered(path, too_large) == (413, "the request is larger than 64 MiB; send less at once")
    assert call(local, "validate", json.dumps(ROWS))["examples"] == len(ROWS)


def test_case_15_an_upload_is_limited_as_a_whole(local):
    """Gradio limits each file: together they, or what is beside them, could be any size."""
    half = b" " * 33 * 2**20
    with httpx.Client(base_url=local.src, timeout=60) as http:
        (name,) = http.post("gradio_api/upload", files={"files": ("rows.json", json.dumps(ROWS))}).json()
        assert re.fullmatch("held-[0-9a-f]{32}", name)
        assert http.get(f"gradio_api/file={name}").json() == ROWS
        folder = Path(get_upload_folder())
        assert "rows.json" in {path.name for path in folder.rglob("*")}
        before = set(folder.rglob("*"))
        two = [("files", ("one.json", half)), ("files", ("two.json", half))]
        for files, fields in ((two, {}), ([("files", ("rows.json", b"[]"))], {"beside": half * 2})):
            answer = http.post("gradio_api/upload", files=files, data=fields)
            assert answer.status_code == 413
            assert answer.text == f"The upload exceeds the maximum allowed size of {65 * 2**20} bytes."
        assert set(folder.rglob("*")) == before  # nothing is left of them
    assert call(local, "validate", json.dumps(ROWS))["examples"] == len(ROWS)


HALF = "must be valid Unicode; it has the lone surrogate \\\\ud800 at character 0"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        (
            "validate",
            r'["[{\"prompt\": \"\\ud800\", \"chosen\": [\"a\"], \"rejected\": [\"b\"]}]", false]',
            f"text.json: row 1: prompt {HALF}",
        ),
        (
            "convert",
            r'[[{"prompt": "\ud800", "chosen": ["a"], "rejected": ["b"]}], "native"]',
            f"rows: row 1: prompt {HALF}",
        ),
        (
            "start_run",
            r'[{"model": "tiny"}, [{"prompt": "p", "chosen": ["a", "\ud800"], "rejected": ["b"]}], null, ""]',
            f"rows: row 1: chosen[1] {HALF}",
        ),
        (
            "start_run",
            r'[{"model": "\ud800"}, [{"prompt": "p", "chosen": ["a"], "rejected": ["b"]}], null, ""]',
            "model: input should be a valid string, unable to parse raw data as a unicode string",
        ),
        (
            "score_pairs",
            r'[[{"prompt": "p", "chosen": ["a"], "rejected": ["\ud800"]}], "reward", "centered", "sum", "", ""]',
            f"rows: row 1: rejected[0] {HALF}",
        ),
        ("score_steps", r'["p", ["\ud800"], "reward", "centered"]', f"steps[0] {HALF}"),
        (
            "step_logps",
            r'[[{"prompt": "\ud800", "chosen": ["a"], "rejected": ["b"]}], "policy", "", ""]',
            f"rows: row 1: prompt {HALF}",
        ),
        ("answer", r'[["\ud800"], "policy", "", ""]', f"prompt 1 {HALF}"),
        ("run_status", r'["\ud800", ""]', "there is no run '\\\\ud800'"),
    ],
)
def test_case_16_half_a_character_is_refused_by_name(local, name, arguments, words):
    status, said = posted(local, name, arguments)
    assert (status, said[:13]) == (200, "event: error\n")
    assert f'{{"error": "{words}' in said
    assert call(local, "runs") == []
    assert left_behind(RUNS_OF_LOCAL) == []


def test_a_large_request_is_read_whole(local):
    rows = [{**ROWS[0], "id": str(n), "meta": {"words": "x" * 1_000}} for n in range(1_000)]  # a thread checks it
    assert call(local, "statistics", rows)["pairs"] == 1_000


@pytest.mark.parametrize(
    ("place", "expected"),
    [((), "words"), ((1,), "second: words"), ((1, "x", 0), "second.x.0: words"), (("named",), "named: words")],
)
def test_a_fault_is_said_with_its_place_where_it_has_one(place, expected):
    assert _fault(place, "words", ["first", "second"]) == expected


def test_remarks_are_made_once_per_example(monkeypatch):
    made = []
    problems = PreferencePair.problems
    monkeypatch.setattr(PreferencePair, "problems", lambda pair: made.append(pair.id) or problems(pair))
    endpoints = Endpoints(None, SimpleNamespace(public=False), None, None)
    same = {**ROWS[0], "rejected": ROWS[0]["chosen"]}
    found = endpoints.validate(json.dumps([same, ROWS[1]]))
    assert [about["id"] for about in found["remarks"]] == ["0"]
    assert made == ["0", "1"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "someone/else"}, "must be one of"),
        ({"model": "./policy"}, "must be one of"),
        ({"max_steps": 1_000_000_000}, "max_steps"),
        ({"max_steps": 501}, "at most 500 steps"),
        ({"max_length": 1_000_000_000}, "max_length: input should be less than or equal to 1000000"),
        ({"max_length": 1_025}, "at most 1,024 tokens"),
        ({"batch_size": 33}, "at most 32 pairs"),
        ({"save_steps": 1}, "save_steps must be at least 50"),
        ({"reward_template": "x"}, "reward_template can't be set"),
    ],
)
def test_case_17_limits_of_a_public_page(public, settings, words):
    with pytest.raises(AppError, match=words):
        call(public, "start_run", {**TINY_RUN, **settings}, ROWS, visitor=ANNA)
    with pytest.raises(AppError, match=words):
        call(public, "plan_run", {**TINY_RUN, **settings}, 4)
    with pytest.raises(AppError, match="must be one of"):
        call(public, "score_steps", "p", ["a"], reward_model="./reward")
    assert call(public, "runs", visitor=ANNA) == []
    assert left_behind(RUNS_OF_PUBLIC) == []


@pytest.mark.parametrize("model", ["someone/else", "./policy", "../policy", str(BUNDLED_FOLDER), "google/flan-t5-base"])
def test_case_07_no_endpoint_of_a_public_page_loads_another_model(public, model):
    calls = {
        "answer": (["1 + 1?"], model),
        "step_logps": (ROWS[:1], model),
        "score_pairs": (ROWS[:1], model),
        "score_steps": ("1 + 1?", ["2"], model),
    }
    for name, args in calls.items():
        with pytest.raises(AppError, match=r"on this public page the (reward )?model must be one of"):
            call(public, name, *args)
    for setting in ("model", "reward_model"):
        with pytest.raises(AppError, match=r"on this public page the (reward )?model must be one of"):
            call(public, "start_run", {**TINY_RUN, setting: model}, ROWS, visitor=ANNA)


def test_case_06_no_endpoint_reaches_another_visitors_run(public):
    run_id = call(public, "start_run", LONG_RUN, ROWS, visitor=ANNA)["run_id"]
    calls = {
        "rerun_run": [run_id], "discard_run": [run_id],
        "run_status": [run_id], "run_metrics": [run_id, 0], "run_examples": [run_id], "run_commands": [run_id],
        "stop_run": [run_id], "resume_run": [run_id], "delete_run": [run_id], "note_run": [run_id, "mine now"],
        "answer": [["p"], "policy", run_id], "step_logps": [ROWS[:1], "policy", run_id], "run_model": [run_id],
        "score_pairs": [ROWS[:1], "reward", "centered", "sum", run_id], "agreement": [ROWS[:1], "reward", run_id],
        "run_log": [run_id],
    }  # fmt: skip
    with_runs = {
        e for e in vars(Endpoints) if not e.startswith("_") and "run_id" in getattr(Endpoints, e).__annotations__
    }
    assert set(calls) == with_runs | {"run_model"}
    calls["compare"] = [f"before:{run_id}", f"after:{run_id}"]
    for name, args in calls.items():
        with pytest.raises(AppError, match="there is no run"):
            call(public, name, *args, BEN)
        with pytest.raises(AppError, match="secret of your own"):
            call(public, name, *args, "")
    assert call(public, "runs", visitor=BEN) == []
    with pytest.raises(AppError, match="secret of your own"):
        call(public, "runs")
    assert call(public, "run_status", run_id, visitor=ANNA)["state"] not in ENDED
    assert call(public, "stop_run", run_id, visitor=ANNA)["run_id"] == run_id
    assert wait(public, run_id, ANNA)["state"] == "stopped"


def test_case_06_no_event_of_the_page_reaches_another_visitors_run(public):
    """Every function behind the page, called by hand from another session with whatever a browser can send."""
    rows = [{**ROWS[0], "prompt": "Annas-own-prompt?"}, *ROWS[1:]]
    run_id = call(public, "start_run", LONG_RUN, rows, visitor=ANNA)["run_id"]
    call(public, "note_run", run_id, "Annas-own-note", visitor=ANNA)
    seen = []
    with httpx.Client(base_url=public.src, timeout=60) as http:
        functions = http.get("config").json()["dependencies"]
        page = [f for f in functions if f["api_visibility"] == "private" and f["backend_fn"]]
        assert len(page) > 60
        event_data = {"key": run_id, "act": "delete", "on": True, "text": "Bens", "page": 0}
        for function in page:
            body = {
                "data": [run_id] * len(function["inputs"]),
                "fn_index": function["id"],
                "event_data": event_data,
                "session_hash": "bens",
                "trigger_id": None,
            }
            http.post("gradio_api/queue/join", json=body).raise_for_status()
            with http.stream("GET", "gradio_api/queue/data", params={"session_hash": "bens"}) as answers:
                for line in answers.iter_lines():
                    seen.append(line)
                    if "process_completed" in line or "close_stream" in line:
                        break
        for file in ("config.json", "metrics.jsonl", "notes.txt"):
            place = RUNS_OF_PUBLIC[0] / run_id / file
            assert http.get(f"gradio_api/file={place}").status_code in (403, 404)
    assert sum("process_completed" in line for line in seen) >= len(page)
    assert not [line[:300] for line in seen if "Annas-own" in line]
    status = call(public, "run_status", run_id, visitor=ANNA)
    assert status["state"] not in ENDED
    call(public, "stop_run", run_id, visitor=ANNA)
    assert wait(public, run_id, ANNA)["state"] == "stopped"
