import pytest

from stepwise_dpo.runs.threads import waiting
from stepwise_dpo.runs.worker_process import worker_environment


def test_waiting_threads_sleep_unless_the_environment_says_how_they_wait():
    added = waiting({"PATH": "/bin"})
    assert added["OMP_WAIT_POLICY"] == "PASSIVE"
    assert int(added["GOMP_SPINCOUNT"]) > 0
    assert worker_environment({}).items() >= added.items()


@pytest.mark.parametrize("said", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "0"}])
def test_neither_variable_overrules_what_the_other_says(said):
    assert waiting(said) == {}
    given = worker_environment(said)
    assert {name: given[name] for name in given if name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")} == said
