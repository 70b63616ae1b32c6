"""Models that the page's own process asks: how much it reads, what it keeps, and who waits for whom."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stepwise_dpo.errors import DataError, ModelError
from stepwise_dpo.learning.tiny import build_tiny_model, build_tiny_tokenizer
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.ui.judges import Judges
from stepwise_dpo.ui.loaded_models import LoadedModels, version_of
from stepwise_dpo.ui.measuring import Measurements, Model
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.read_limits import MAX_TOKENS
from stepwise_dpo.ui.step_scores import Source, StepScores

SHORT = PreferencePair("p", [Step("a"), Step("b")], [Step("c")], "short")
LATER = PreferencePair("q", [Step("a")], [Step("c")], "later")
LONG = PreferencePair("p", [Step("a")], [Step("b"), Step("x" * 3_000)], "seven")
HUGE = PreferencePair("p", [Step("y" * 60_000), Step("z" * 60_000)], [Step("c")], "eight")


# --------------------------------------------------------------------------------------------- how much it reads

TOO_LONG = r"^example 'seven', rejected: prompt and steps together have 3,0\d\d tokens, .* at most 2,048; shorten"
TOO_MANY_CHARACTERS = r"^example 'eight', chosen: .* have 120,001 characters, .* at most 100,000"


@pytest.mark.parametrize(("pair", "words"), [(LONG, TOO_LONG), (HUGE, TOO_MANY_CHARACTERS)])
def test_no_request_may_take_the_servers_memory(pair, words, monkeypatch):
    """Refused before anything is scored, by number and place; the command line has no such limit."""
    judges, policies = Judges(), Policies()
    assert len(policies.logps("tiny", [SHORT])) == len(judges.score("tiny", [SHORT], "centered")) == 1

    def scored(*args, **named):
        raise AssertionError("scored before all were checked")

    monkeypatch.setattr("stepwise_dpo.learning.evaluation.pair_logps", scored)
    monkeypatch.setattr("stepwise_dpo.learning.rewards.LLMRewardModel.score_pairs", scored)
    with pytest.raises(DataError, match=words):
        policies.logps("tiny", [SHORT, pair])
    with pytest.raises(DataError, match=words):
        judges.score("tiny", [SHORT, pair], "centered")


def test_a_long_solution_and_a_long_prompt_are_refused():
    with pytest.raises(DataError, match=r"^solution 2: prompt and steps together have 3,\d\d\d tokens"):
        Judges().score_solutions("tiny", [("p", ["a"]), ("p" * 3_000, ["a"])], "centered")
    with pytest.raises(DataError, match=r"^prompt 2 has 3,001 tokens, .* at most 2,048"):
        Policies().answers("tiny", ["p", "p" * 3_000])
    with pytest.raises(DataError, match=r"^prompt 1 must have at most 100,000 characters"):
        Policies().answers("tiny", ["p" * 100_001])


def test_what_is_just_short_enough_is_scored():
    ends = 1 + 1  # of the prompt and of the completion
    pair = PreferencePair("p", [Step("x" * (MAX_TOKENS - 1 - ends))], [Step("c")])
    assert Policies().logps("tiny", [pair])[0].chosen.tokens == MAX_TOKENS - 2


# ------------------------------------------------------------------------------------------ weights that change


def save_tiny(folder, seed):
    build_tiny_model(seed).save_pretrained(folder)
    build_tiny_tokenizer().save_pretrained(folder)


def test_a_resumed_runs_new_weights_are_what_is_shown(tmp_path):
    """`final/` is replaced by Resume: neither the old weights nor the scores by them may stay."""
    folder = str(tmp_path)
    judges, policies = Judges(), Policies()
    scores, measurements = StepScores(judges, policies), Measurements(policies)
    model = Model("before:x", "x", "before", folder, folder, None)
    seen = []
    for seed in (0, 1, 0):
        save_tiny(folder, seed)
        judged, scored = Source("judge", folder, "t"), Source("policy", folder, "t")
        assert scores.known(judged, [SHORT])[0] is None
        assert scores.known(scored, [SHORT])[0] is None
        assert measurements.missing(model, [SHORT]) == [SHORT]
        assert list(measurements.measure(model, [SHORT])) == [1]
        seen.append(
            (
                tuple(policies.logps(folder, [SHORT])[0].chosen.steps),
                tuple(scores.of(scored, SHORT).chosen),
                tuple(scores.of(judged, SHORT).chosen),
                measurements.comparison(model, model, [SHORT])[0].before.chosen,
            )
        )
        assert scores.known(judged, [SHORT])[0] == scores.of(judged, SHORT)
        assert measurements.missing(model, [SHORT]) == []
    assert all(first != second for first, second in zip(*seen[:2], strict=True))
    assert seen[0] == seen[2]


def test_a_models_version_is_that_of_its_files(tmp_path):
    assert version_of("google/flan-t5-small") == version_of("~nobody/x") == version_of("\x00") == ()
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"old")
    first = version_of(str(tmp_path))
    assert first == version_of(str(tmp_path)) != ()
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert version_of(str(tmp_path)) != first


# ------------------------------------------------------------------------------------------ who waits for whom


def test_a_download_keeps_nobody_from_a_loaded_model(monkeypatch):
    judges, policies = Judges(), Policies()
    before = judges.score("tiny", [SHORT], "centered"), policies.logps("tiny", [SHORT])
    started, finish = threading.Event(), threading.Event()

    def slow(name):
        started.set()
        assert finish.wait(60)
        raise ModelError("gone")

    monkeypatch.setattr("stepwise_dpo.learning.loading.load_policy", slow)
    with ThreadPoolExecutor(3) as pool:
        waiting = pool.submit(policies.logps, "someone/large", [SHORT])
        assert started.wait(60)
        now = pool.submit(lambda: (judges.score("tiny", [SHORT], "centered"), policies.logps("tiny", [SHORT])))
        try:
            assert now.result(timeout=60) == before
            assert not waiting.done()
        finally:
            finish.set()
        with pytest.raises(ModelError, match="gone"):
            waiting.result()


def test_a_model_that_two_ask_for_is_loaded_once_and_the_last_ones_are_kept():
    loaded = []

    def load(name):
        loaded.append(name)
        time.sleep(0.05)
        return name.upper()

    models = LoadedModels(load, kept=2)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(models.get, ["a"] * 4)) == ["A"] * 4
    assert loaded == ["a"]
    for name in ("b", "a", "c"):
        models.get(name)
    assert [name in models for name in "abc"] == [True, False, True]
    assert loaded == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["judge", "policy"])
def test_others_get_their_turn_while_many_are_scored(kind):
    """A request of 200 rows lets go of the model between its parts."""
    model, source = (Judges() if kind == "judge" else Policies()), Source(kind, "tiny", "t")
    pairs = [PreferencePair("p", [Step(f"a {i}")], [Step("c")], str(i)) for i in range(200)]

    def score(some):
        return model.score(source.name, some, "log_odds") if kind == "judge" else model.logps(source.name, some)

    score([SHORT])
    ends = {}
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(score, pairs)
        long.add_done_callback(lambda _: ends.setdefault("long", time.monotonic()))
        time.sleep(0.02)
        short = pool.submit(score, [LATER])
        short.add_done_callback(lambda _: ends.setdefault("short", time.monotonic()))
        assert len(long.result()) == 200
        assert len(short.result()) == 1
    assert ends["short"] < ends["long"]


def test_tokens_are_counted_without_the_model(monkeypatch):
    def never(*args, **named):
        raise AssertionError("weights were loaded to count tokens")

    monkeypatch.setattr("stepwise_dpo.learning.loading._load", never)
    policies = Policies()
    assert policies.token_counts("policy", ["1 + 1", ""])[1] == 0
    assert policies.token_counts("tiny", ["abc"]) == [3]
    assert policies.token_counts("tiny", []) == []
    with pytest.raises(ModelError, match="no such folder"):
        policies.token_counts("./gone", ["a"])


# ------------------------------------------------------------------------------------------ what is remembered


def test_typing_doesnt_fill_the_memory(monkeypatch):
    monkeypatch.setattr("stepwise_dpo.ui.judges.CACHED_TOKENS", 1_000)
    judges = Judges()
    for number in range(50):
        judges.score_solutions("tiny", [("q", [f"step {number}"])], "centered")
    assert 0 < len(judges._models.get("tiny")._cache) < 15
