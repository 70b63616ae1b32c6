import pytest

from stepwise_dpo.bench.sessions import Memory, Plan, Result, as_json, percentile, run_sessions, table_lines


@pytest.mark.slow
def test_a_few_sessions_lose_nothing():
    plan = Plan(sessions=3, minutes=0.05, runs=1, public=True, reload_seconds=2.0, think_seconds=(0.3, 0.6))
    result = run_sessions(plan)
    assert not result.errors
    assert result.lost == []
    assert result.edits > 0
    assert len(result.scorings) > 0
    assert len(result.polls) > 2
    assert len(result.looks) > 0
    assert result.requests["follow"] > 0
    assert (result.runs_done, result.runs_refused, result.out_of_turn) == (1, 0, 0)
    assert result.memory[-1].tree >= result.memory[-1].server > 0


def test_the_table_says_what_was_lost_and_the_file_holds_the_figures():
    result = Result(Plan(sessions=2, minutes=11), polls=[0.1, 0.2, 0.3, 0.4], lost=["session 1 found nothing"])
    result.errors["poll: broke"] += 2
    result.requests["poll"] += 4
    result.memory = [Memory(minute, 2**20 * (100 + int(minute)), 2**28) for minute in (0.0, 0.5, 5.1, 10.0, 11.0)]
    lines = list(table_lines(result))
    assert [line.split()[0] for line in lines[:3]] == ["sessions", "requests", "errors"]
    assert "    2 x poll: broke" in lines
    assert "    session 1 found nothing" in lines
    assert [line.split("  ")[0] for line in lines if line.startswith("memory")] == [
        f"memory at {minute} min" for minute in ("0.0", "0.5", "5.1", "10.0", "11.0")
    ]
    known = as_json(result)
    assert known["polls"] == {"count": 4, "p50": 0.2, "p95": 0.4, "p99": 0.4, "p100": 0.4}
    assert known["plan"]["sessions"] == 2
    assert percentile([], 0.5) == 0
    assert percentile(range(1, 101), 0.95) == 95
