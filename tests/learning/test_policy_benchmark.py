import json

import pytest

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.evaluation import Answer, PairLogps, SolutionLogps, answer_prompts, pair_logps
from stepwise_dpo.learning.loading import load_policy
from stepwise_dpo.learning.policy_benchmark import Attempt, PolicyResults, policy_report, run_policy
from stepwise_dpo.preferences.pairs import PreferencePair, Step


def pair_of(name, **meta):
    return PreferencePair(f"prompt {name}", [Step("yes")], [Step("no")], id=name, meta=meta)


def logps(chosen):
    return PairLogps(SolutionLogps([chosen], 1), SolutionLogps([-1.0], 1))


def attempt(pair, verdicts, solved, samples_solved, complete=True):
    return Attempt(pair, Answer(["step"] * len(verdicts), complete), solved, verdicts, samples_solved)


A, B, C = pair_of("a", family="x"), pair_of("b", family="y"), pair_of("c")
RESULTS = PolicyResults(
    [A, B, C],
    [logps(-0.5), logps(-2.0), logps(-1.0)],
    [attempt(A, [True, True, True], True, 3), attempt(B, [True, False], False, 1, complete=False)],
    [C],
    4,
)


def test_figures():
    report = policy_report(RESULTS, [1, 2])
    assert report["solve_rate"] == 0.5
    assert report["step_accuracy"] == pytest.approx(4 / 5)
    assert report["complete"] == 0.5
    # pass@1: (3/4 + 1/4) / 2. pass@2: of six draws of two all hit with three right, and half with one.
    assert report["pass_at_k"] == pytest.approx({"1": 0.5, "2": 0.75})
    assert report["preference_accuracy"] == pytest.approx(1 / 3)  # "c" is a tie
    assert report["mean_margin"] == pytest.approx((0.5 - 1.0 + 0.0) / 3)
    assert report["counts"] == {"prompts": 2, "pairs": 3, "unknown": 1, "steps": 5, "samples": 4}
    assert report["unknown"] == ["c"]
    assert report["undefined"] == {}
    assert set(report["intervals"]) == {
        "solve_rate", "complete", "pass_at_1", "pass_at_2", "step_accuracy", "preference_accuracy",
        "mean_margin",
    }  # fmt: skip
    assert report["intervals"]["solve_rate"] == [0, 1]
    assert report["intervals"]["mean_margin"] == [-1.0, 0.5]  # three times "b", three times "a"
    json.dumps(report, allow_nan=False)


def test_figures_of_families():
    families = policy_report(RESULTS, [1])["per_family"]
    assert list(families) == ["x", "y"]
    assert (families["x"]["solve_rate"], families["x"]["pass_at_k"]) == (1, {"1": 0.75})
    assert (families["y"]["solve_rate"], families["y"]["step_accuracy"]) == (0, 0.5)
    assert families["y"]["preference_accuracy"] == 0
    assert families["x"]["intervals"]["solve_rate"] is None  # one prompt doesn't vary
    assert families["x"]["counts"]["unknown"] == 0


def test_pairs_without_ids_count_in_their_own_family():
    one, other = (pair_of("", family=family) for family in "xy")
    results = PolicyResults([one, other], [logps(0.5)] * 2, [attempt(one, [True], True, 0)], [other], 0)
    families = policy_report(results)["per_family"]
    assert [families[name]["counts"]["unknown"] for name in "xy"] == [0, 1]


def test_what_isnt_defined_is_null_with_a_reason():
    pair = pair_of("c", family="z")
    silent = PolicyResults([A, pair], [logps(0.0)] * 2, [attempt(A, [], False, 0)], [pair], 0)
    report = policy_report(silent)
    assert report["step_accuracy"] is None
    assert report["undefined"] == {"step_accuracy": "the policy wrote no steps"}
    assert report["pass_at_k"] == {}
    unknown = report["per_family"]["z"]
    assert unknown["solve_rate"] is unknown["complete"] is None
    assert unknown["preference_accuracy"] == 1
    assert unknown["undefined"] == dict.fromkeys(
        ("solve_rate", "step_accuracy", "complete"), "the checker knows none of these prompts"
    )


def test_k_beyond_the_samples():
    with pytest.raises(ConfigError, match="pass@5 needs at least 5 samples"):
        policy_report(RESULTS, [1, 5])


def test_a_real_policy(pairs):
    policy = load_policy("tiny")
    policy.model.train()
    twin = PreferencePair(pairs[0].prompt, pairs[0].chosen, pairs[0].rejected, id="twin")
    stranger = PreferencePair("What is love?", [Step("a")], [Step("b")], id="stranger")
    examples = [*pairs[:3], twin, stranger]
    told = []

    def bar(description, unit):
        return lambda done, total: told.append((description, unit, done, total))

    results = run_policy(policy, examples, samples=2, max_new_tokens=5, batch_size=2, bar=bar)
    assert policy.model.training
    assert [attempt.pair.id for attempt in results.attempts] == [pair.id for pair in pairs[:3]]
    assert [pair.id for pair in results.unknown] == ["stranger"]
    for attempted in results.attempts:
        assert [attempted.answer] == answer_prompts(policy, [attempted.pair.prompt], max_new_tokens=5)
        assert len(attempted.verdicts) == len(attempted.answer.steps)
        assert not attempted.solved  # random weights
    assert [logps.margin for logps in results.logps] == pytest.approx(
        [logps.margin for logps in pair_logps(policy, examples)], abs=1e-4
    )
    last = {description: (done, total) for description, _, done, total in told}
    assert last == {"Scoring": (5, 5), "Answering": (3, 3), "Sampling": (3, 3)}


def test_a_policy_that_knows_the_answers(pairs, monkeypatch):
    solutions = {pair.prompt: [step.text for step in pair.chosen] for pair in pairs}
    solutions[pairs[0].prompt] = [step.text for step in pairs[0].rejected]

    def answer(policy, prompts, **_):
        return [Answer(solutions[prompt], True) for prompt in prompts]

    monkeypatch.setattr("stepwise_dpo.learning.policy_benchmark.answer_prompts", answer)
    report = policy_report(run_policy(load_policy("tiny"), pairs))
    assert report["solve_rate"] == pytest.approx(11 / 12)
    wrong = sum(step.label is False for step in pairs[0].rejected)
    steps = sum(len(solution) for solution in solutions.values())
    assert report["step_accuracy"] == pytest.approx((steps - wrong) / steps)
