import gc

import pytest

from stepwise_dpo.runs.quick_import import without_collection


@pytest.fixture(autouse=True)
def collecting():
    assert gc.isenabled()
    yield
    gc.enable()
    gc.unfreeze()


def test_what_is_there_afterwards_is_never_looked_through():
    before = gc.get_freeze_count()
    with without_collection():
        assert not gc.isenabled()
        made = [[number] for number in range(100_000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)


def test_the_collector_stays_off_where_it_was_and_comes_back_after_an_error():
    gc.disable()
    with without_collection():
        pass
    assert not gc.isenabled()
    gc.enable()
    before = gc.get_freeze_count()
    with pytest.raises(ImportError), without_collection():
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() <= before
