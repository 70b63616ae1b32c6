import math

import pytest
import torch

from stepwise_dpo.learning.losses import Side, aggregate_steps, log_likelihood, stepwise_loss, sum_per_step


def side(logps, rewards, step_ids=None, ref=None):
    logps = torch.tensor(logps, dtype=torch.float64)
    rewards = torch.tensor(rewards, dtype=torch.float64)
    if step_ids is None:
        step_ids = [[0] * logps.size(1)] * logps.size(0)
    ref_logps = torch.zeros_like(logps) if ref is None else torch.tensor(ref, dtype=torch.float64)
    return Side(logps, ref_logps, torch.tensor(step_ids), rewards, torch.ones_like(rewards, dtype=torch.bool))


# Two pairs. Tokens: chosen (-1, -3) and (-2, padding), rejected (-4, -4) and (-1, -5); one or two steps.
#   pair 0: ll mean -2 and -4, margin 2;       rewards 0.5 + 0.25 and 0.25 + 0, preference 0.5
#   pair 1: ll mean -2 and -3, margin 1;       rewards 0.1 + 0.1 and 0.8 + 0.4, preference -1
CHOSEN = side([[-1.0, -3.0], [-2.0, 99.0]], [[0.5, 0.25], [0.1, 0.1]], [[0, 1], [0, -1]])
REJECTED = side([[-4.0, -4.0], [-1.0, -5.0]], [[0.25, 0.0], [0.8, 0.4]], [[0, 1], [0, 1]])


def test_numbers_derived_by_hand():
    result = stepwise_loss(CHOSEN, REJECTED)
    torch.testing.assert_close(result.margin, torch.tensor([2.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(result.preference, torch.tensor([0.5, -1.0], dtype=torch.float64))
    # -log sigmoid(0.5 * 2) = log(1 + 1/e); -log sigmoid(-1 * 1) = log(1 + e)
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))]
    torch.testing.assert_close(result.losses, torch.tensor(expected, dtype=torch.float64))


def test_sum_likelihood():
    result = stepwise_loss(CHOSEN, REJECTED, likelihood="sum")
    torch.testing.assert_close(result.margin, torch.tensor([-4 + 8, -2 + 6], dtype=torch.float64))


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("sum", [0.75, 0.2]),
        ("mean", [0.375, 0.1]),
        ("min", [0.25, 0.1]),
        ("last", [0.25, 0.1]),
        ("product", [0.125, 0.01]),
        ("until_error", [0.75, 0.2]),
    ],
)
def test_aggregations(aggregation, expected):
    value = aggregate_steps(CHOSEN.process_rewards, CHOSEN.step_mask, aggregation)
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))


def test_until_error_counts_up_to_the_first_step_below_neutral():
    rewards = torch.tensor([[0.9, 0.8, 0.2, 0.95], [0.3, 0.9, 0.9, 0.1], [0.6, 0.5, 0.7, -5.0], [0.7, 0.4, 0.1, 0.9]])
    mask = torch.tensor([[True] * 4, [True] * 4, [True, True, True, False], [True] * 4])
    # probabilities: the third step is the first below 0.5; the first; none is (0.5 isn't below); the second
    expected = torch.tensor([0.9 + 0.8 + 0.2, 0.3, 0.6 + 0.5 + 0.7, 0.7 + 0.4])
    torch.testing.assert_close(aggregate_steps(rewards, mask, "until_error", 0.5), expected)
    centred = 2 * rewards - 1
    expected = torch.tensor([0.8 + 0.6 - 0.6, -0.4, 0.2 + 0 + 0.4, 0.4 - 0.2])
    torch.testing.assert_close(aggregate_steps(centred, mask, "until_error"), expected)


def test_the_loss_knows_the_neutral_value():
    first, second = side([[-1.0]], [[0.4, 0.9]]), side([[-2.0]], [[0.3, 0.3]])
    preference = stepwise_loss(first, second, aggregation="until_error", neutral=0.5).preference
    torch.testing.assert_close(preference, torch.tensor([0.4 - 0.3], dtype=torch.float64))


@pytest.mark.parametrize("aggregation", ["sum", "mean", "min", "last", "product", "until_error"])
def test_padding_steps_never_count(aggregation):
    rewards = torch.tensor([[0.5, 0.25, -77.0]])
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(
        aggregate_steps(rewards, mask, aggregation), aggregate_steps(rewards[:, :2], mask[:, :2], aggregation)
    )


@pytest.mark.parametrize("likelihood", ["mean", "sum"])
def test_padding_tokens_never_count(likelihood):
    padded = [
        Side(
            *(
                torch.cat([x, torch.full_like(x[:, :1], fill)], 1) if i < 3 else x
                for i, (x, fill) in enumerate(zip(s, (123.0, -9.0, -1, 0, 0), strict=True))
            )
        )
        for s in (CHOSEN, REJECTED)
    ]
    torch.testing.assert_close(
        stepwise_loss(*padded, likelihood=likelihood).losses,
        stepwise_loss(CHOSEN, REJECTED, likelihood=likelihood).losses,
    )


def test_one_step_and_preference_one_is_the_plain_log_likelihood_gap():
    chosen, rejected = side([[-1.5, -0.25]], [[1.0]]), side([[-2.0, -1.0]], [[0.0]])
    expected = -torch.nn.functional.logsigmoid(torch.tensor([-1.75 + 3.0], dtype=torch.float64))
    torch.testing.assert_close(stepwise_loss(chosen, rejected, likelihood="sum").losses, expected)


def test_swapping_the_sides_changes_nothing():
    # Preference and margin both change their sign, so their product doesn't.
    one, other = stepwise_loss(CHOSEN, REJECTED), stepwise_loss(REJECTED, CHOSEN)
    torch.testing.assert_close(one.losses, other.losses)
    torch.testing.assert_close(one.preference, -other.preference)


def test_gradient_formula_and_sign():
    logps = CHOSEN.logps.clone().requires_grad_()
    result = stepwise_loss(CHOSEN._replace(logps=logps), REJECTED)
    result.losses.sum().backward()
    slope = -result.preference * torch.sigmoid(-result.preference * result.margin)  # d loss / d margin
    expected = torch.stack([slope[0] / 2, slope[0] / 2, slope[1], torch.zeros((), dtype=torch.float64)]).view(2, 2)
    torch.testing.assert_close(logps.grad, expected.detach())
    assert logps.grad[0, 0] < 0 < logps.grad[1, 0]  # a negative preference pushes the chosen answer down


def test_skip_drops_loss_and_gradient_of_nonpositive_pairs():
    logps = CHOSEN.logps.clone().requires_grad_()
    losses = stepwise_loss(CHOSEN._replace(logps=logps), REJECTED, nonpositive="skip").losses
    assert losses[1] == 0
    torch.testing.assert_close(losses[0], stepwise_loss(CHOSEN, REJECTED).losses[0])
    losses.sum().backward()
    assert logps.grad[1].abs().sum() == 0
    assert logps.grad[0].abs().sum() > 0


def test_clamp_gives_ln_2_and_no_gradient():
    logps = CHOSEN.logps.clone().requires_grad_()
    losses = stepwise_loss(CHOSEN._replace(logps=logps), REJECTED, nonpositive="clamp").losses
    torch.testing.assert_close(losses[1].item(), math.log(2))
    losses.sum().backward()
    assert logps.grad[1].abs().sum() == 0


def test_zero_preference_gives_ln_2():
    equal = side([[-1.0]], [[0.3]])
    assert stepwise_loss(equal, side([[-5.0]], [[0.3]])).losses.item() == pytest.approx(math.log(2))


def test_anchoring_subtracts_the_reference():
    anchored = CHOSEN._replace(ref_logps=torch.full_like(CHOSEN.logps, -0.5))
    result = stepwise_loss(anchored, REJECTED, anchor_to_reference=True)
    torch.testing.assert_close(result.margin, torch.tensor([2.5, 1.5], dtype=torch.float64))


@pytest.mark.parametrize("nonpositive", ["train", "skip", "clamp"])
@pytest.mark.parametrize("aggregation", ["sum", "mean", "min", "last", "product", "until_error"])
@pytest.mark.parametrize("likelihood", ["mean", "sum"])
def test_gradcheck(likelihood, aggregation, nonpositive):
    def loss(chosen_logps, rejected_logps, chosen_rewards, rejected_rewards):
        return stepwise_loss(
            CHOSEN._replace(logps=chosen_logps, process_rewards=chosen_rewards),
            REJECTED._replace(logps=rejected_logps, process_rewards=rejected_rewards),
            likelihood=likelihood,
            aggregation=aggregation,
            nonpositive=nonpositive,
        ).losses

    # Away from the kinks of min (equal rewards) and of skip and clamp (preference 0).
    rewards = torch.tensor([[0.5, 0.26], [0.12, 0.1]], dtype=torch.float64)
    tensors = (CHOSEN.logps, REJECTED.logps, rewards, REJECTED.process_rewards)
    assert torch.autograd.gradcheck(loss, [tensor.clone().requires_grad_() for tensor in tensors])


@pytest.mark.parametrize("option", [{"likelihood": "median"}, {"aggregation": "max"}, {"nonpositive": "ignore"}])
def test_unknown_words_are_refused(option):
    (name,) = option
    with pytest.raises(ValueError, match=name):
        stepwise_loss(CHOSEN, REJECTED, **option)


def test_sum_per_step():
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]])
    step_ids = torch.tensor([[0, 0, 1, -1], [-1, 0, 1, 2]])
    expected = torch.tensor([[3.0, 4.0, 0.0], [32.0, 64.0, 128.0]])
    torch.testing.assert_close(sum_per_step(values, step_ids, 3), expected)


def test_log_likelihood_is_per_token_or_summed():
    torch.testing.assert_close(log_likelihood(CHOSEN, "mean"), torch.tensor([-2.0, -2.0], dtype=torch.float64))
    torch.testing.assert_close(log_likelihood(CHOSEN, "sum"), torch.tensor([-4.0, -2.0], dtype=torch.float64))
