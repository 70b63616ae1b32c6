import time

import pytest

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.discarding import discard, is_discarded, sweep
from stepwise_dpo.runs.notes import MAX_CHARACTERS, read_note, write_note
from stepwise_dpo.runs.pace import Pace, known_pace, pace_of, step_seconds
from stepwise_dpo.runs.supervisor import Supervisor


@pytest.fixture
def make(tmp_path):
    def make(name, state="finished", times=(), **settings):
        run = RunDirectory(tmp_path / "runs" / name)
        run.create(make_config({"data": "x.json", **settings}))
        for step, moment in enumerate(times, 1):
            run.append_metrics({"global_step": step, "time": moment, "loss": 0.5})
        run.write_status(RunStatus(state, started=times[0] - 7 if times else 0.0))
        return run

    return make


# --------------------------------------------------------------------------------------------------------------- notes


def test_a_note_is_one_line_and_has_a_limit(make):
    run = make("a")
    assert read_note(run) == ""
    write_note(run, "  lower\nrate, \ud83d see 3 ")
    assert read_note(run) == "lower rate, ? see 3"
    with pytest.raises(RunError, match=f"at most {MAX_CHARACTERS} characters, this one has {MAX_CHARACTERS + 1}"):
        write_note(run, "x" * (MAX_CHARACTERS + 1))
    with pytest.raises(RunError, match="must be a text"):
        write_note(run, ["x"])
    assert read_note(run) == "lower rate, ? see 3"
    write_note(run, " ")
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "status.json"]


# ---------------------------------------------------------------------------------------------------------------- pace


def test_pace_is_the_median_of_the_steps(make):
    # An evaluation of 60 s after the third step doesn't count as training.
    run = make("a", times=[100.0, 102.0, 104.0, 166.0, 168.0], batch_size=4, gradient_accumulation=2)
    pace = pace_of(run, run.config())
    assert pace.per_pair == 2.0 / 8
    assert pace.around == pytest.approx(7 + time.time() - 168, abs=60)
    assert Pace("a", 0.25, 10.0).seconds(100, 8) == 210.0
    assert Pace("a", 0.25, 10.0).seconds(100, 8, characters=500) == 210.0  # nobody knows how long its pairs were
    assert Pace("a", 0.25, 10.0, 250).seconds(100, 8, characters=500) == 410.0
    assert pace_of(make("b", times=[1.0, 2.0]), run.config()) is None
    assert pace.characters is None
    run.write_environment({"versions": {}, "data": {}, "characters": 250.0})
    assert pace_of(run, run.config()).characters == 250.0
    run.write_environment({"versions": {}, "data": {}, "characters": 0})
    with pytest.raises(RunError, match=r"environment\.json: characters is damaged"):
        pace_of(run, run.config())
    assert pace_of(make("c", "failed", times=[1.0, 2.0, 3.0]), run.config()).around is None
    resumed = make("d", times=[1.0, 2.0, 3.0])
    resumed.write_status(RunStatus("finished", started=2.5))
    assert pace_of(resumed, run.config()).around is None


def test_a_steps_time_is_that_of_the_present_process(make):
    run = make("a", times=[100.0, 102.0, 104.0])
    assert step_seconds(run) == 2.0
    run.append_metrics({"global_step": 3, "time": 104.0, "eval_loss": 0.5})
    for started, seconds in ((103.0, 1.0), (1000.0, None)):  # resumed, and no step yet
        run.write_status(RunStatus("running", started=started))
        assert step_seconds(run) == seconds
    assert step_seconds(make("b", times=[7.0 * step for step in range(50)])) == 7.0


def test_pace_of_the_same_model_and_if_possible_the_same_loss(make):
    times = [1.0, 2.0, 3.0]
    runs = [make("d", times=times, model="tiny"), make("c", times=times), make("b", times=times, loss="stepwise")]
    (runs[0].path / "config.json").with_name("x").touch()
    assert known_pace(runs, "policy", "dpo").run_id == "c"
    assert known_pace(runs, "policy", "stepwise").run_id == "b"
    assert known_pace(runs, "tiny", "stepwise").run_id == "d"
    assert known_pace(runs, "google/flan-t5-small", "dpo") is None
    runs[1].write_status(RunStatus("running", started=1.0))  # what it has done so far is slower than the rest
    assert known_pace(runs, "policy", "dpo").run_id == "b"
    (runs[1].path / "config.json").write_text("broken")
    assert known_pace(runs, "policy", "dpo").run_id == "b"


# ------------------------------------------------------------------------------------------------------------- discard


def test_an_ended_run_is_discarded_at_once(make, tmp_path):
    run, other = make("a"), make("b")
    discard(Supervisor(tmp_path / "runs"), run)
    assert not run.path.exists()
    assert other.exists()


def test_an_active_run_is_deleted_when_it_has_ended(make, tmp_path):
    supervisor = Supervisor(tmp_path / "runs")
    run = make("a", "queued")
    discard(supervisor, run)
    assert is_discarded(run)
    assert run.stop_requested()
    assert run.path.exists()
    run.write_status(RunStatus("stopped"))
    # Another server, after a restart, carries out the wish.
    sweep(Supervisor(tmp_path / "runs"))
    assert not run.path.exists()


def test_a_discarded_run_that_cannot_be_read_goes_as_well(make, tmp_path):
    run = make("a", "queued")
    discard(supervisor := Supervisor(tmp_path / "runs"), run)
    (run.path / "status.json").write_text("{")
    sweep(supervisor)
    assert not run.path.exists()
