import pytest

from stepwise_dpo.preferences.diagnosis import describe_step

AGES = (
    "Iris is 11 years old. Will is 6 years older than Tara. Tara is 7 times as old as Iris. "
    "What do the ages of the oldest and the youngest add up to?"
)
SOLUTION = ["11 * 7 = 77", "77 + 6 = 83", "83 + 11 = 94", "Answer: 94"]


@pytest.mark.parametrize("index", range(4))
def test_right_steps(index):
    assert describe_step(AGES, SOLUTION, index) == "it is right by the checker"


def test_a_right_step_that_is_one_of_several():
    prompt = AGES.replace("Will is 6 years older than Tara", "Will is 6 years older than Iris")
    assert describe_step(prompt, ["11 + 6 = 17"], 0) == "it is right by the checker, as 1 other would be here"
    assert describe_step(prompt, ["11 + 6 = 17", "11 * 7 = 77"], 1) == "it is right by the checker"


@pytest.mark.parametrize(
    ("prompt", "steps", "clause"),
    [
        (AGES, ["11 * 7 = 78"], "it is miscalculated: 11 * 7 is 77"),
        (AGES, ["11 / 0 = 3"], "it is miscalculated: 11 / 0 is undefined"),
        ("Any problem?", ["4 - 4 = 1"], "it is miscalculated: 4 - 4 is 0"),
        (AGES, ["11 + 6 = 17"], "nothing in the problem asks for it here"),
        (AGES, ["11 * 7 = 77", "11 * 7 = 77"], "nothing in the problem asks for it here"),
        (AGES, ["12 + 6 = 18"], "with 12 from nowhere"),
        ("Any problem with 3?", ["3 + 4 = 7"], "with 4 from nowhere"),
        ("Any problem with 3 and 4?", ["3 + 4 = 7"], "the checker can't say"),
        (AGES, ["11 * 7 = 77", "Answer: 77"], "it repeats the result before it, which is not the answer"),
        ("Any problem?", ["4 + 4 = 8", "Answer: 8"], "it repeats the last result"),
        (AGES, [*SOLUTION[:3], "Answer: 95"], "it states another number than the result before it"),
        (AGES, ["Answer: 95"], "it states another number than the result before it"),
        (AGES, ["Let's see."], "it is no calculation that the checker can read"),
    ],
)
def test_wrong_steps(prompt, steps, clause):
    assert clause in describe_step(prompt, steps, len(steps) - 1)
