"""Step-level preference losses: pure functions of log-probabilities, process rewards and masks.

B = pairs, T = tokens of a row, S = steps of a solution (padded to the longest in the batch).

Every loss of this project takes the two sides of a batch as `Side` and returns one value per pair, so that a loss can
be judged, tested and swapped without a trainer. Standard DPO and its variants are TRL's and not repeated here.
"""

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Likelihood = Literal["mean", "sum"]
Aggregation = Literal["sum", "mean", "min", "last", "product", "until_error"]
NonPositive = Literal["train", "skip", "clamp"]

NO_STEP = -1
"""The step id of tokens that belong to no step: prompt and padding."""


class Side(NamedTuple):
    """One side (chosen or rejected) of a batch of B pairs.

    Attributes:
        logps: the policy's log-probability of each token, in nats, (B, T).
        ref_logps: the reference's, in nats, no gradient, (B, T).
        step_ids: index of each token's step, -1 for prompt and padding, (B, T).
        process_rewards: the reward model's value of each step, (B, S); anything where `step_mask` is False.
        step_mask: which entries of `process_rewards` are steps, bool, (B, S).
    """

    logps: Tensor
    ref_logps: Tensor
    step_ids: Tensor
    process_rewards: Tensor
    step_mask: Tensor


class StepwiseLoss(NamedTuple):
    """What `stepwise_loss` gives: all of shape (B,)."""

    losses: Tensor
    preference: Tensor
    margin: Tensor


def stepwise_loss(
    chosen: Side,
    rejected: Side,
    *,
    likelihood: Likelihood = "mean",
    aggregation: Aggregation = "sum",
    nonpositive: NonPositive = "train",
    anchor_to_reference: bool = False,
    neutral: float = 0.0,
) -> StepwiseLoss:
    r"""The project's own loss: process rewards decide how strongly, and which way, a pair is trained.

        preference = aggregate_s r(chosen step s) - aggregate_s r(rejected step s)
        margin     = ll(chosen) - ll(rejected)
        loss       = -logsigmoid(preference * margin)

    Source: phase 2 of the training log that started this project. No published loss has exactly this product form; the
    closest is TGDPO (arXiv 2506.14574). Worth knowing before reading a curve of it:

    - d loss / d margin = -preference * sigmoid(-preference * margin): a negative preference trains *towards the
      rejected answer*, a preference of 0 gives ln 2 and no gradient, and |preference| acts as a beta per pair. So the
      scale of the rewards sets the effective learning rate, and values of this loss can't be compared with DPO's or
      across reward models.
    - Without `anchor_to_reference` no reference appears: the margin isn't 0 at the start and nothing limits drift.
    - Rewards of one sign make a sum depend on the number of steps; "mean" and "min" don't.

    Args:
        chosen: the preferred solutions.
        rejected: the others, same B and T.
        likelihood: `ll` is the mean over a completion's tokens (nats per token) or their sum (nats).
        aggregation: how the rewards of a solution's steps become one number, see `aggregate_steps`.
        nonpositive: what a preference <= 0 does. "train": use it as it is. "skip": loss 0 and no gradient; the pair
            still counts in the mean over B, so that the weight of the others doesn't depend on it. "clamp": raise it
            to 0, that is loss ln 2 and no gradient to the policy.
        anchor_to_reference: use log-ratios to the reference in place of log-likelihoods.
        neutral: see `aggregate_steps`.

    Returns:
        losses (>= 0), preference and margin of every pair.

    Raises:
        ValueError: an option is none of the listed words.
    """
    chosen_ll = log_likelihood(chosen, likelihood, anchor_to_reference)
    rejected_ll = log_likelihood(rejected, likelihood, anchor_to_reference)
    margin = chosen_ll - rejected_ll
    preference = aggregate_steps(chosen.process_rewards, chosen.step_mask, aggregation, neutral) - aggregate_steps(
        rejected.process_rewards, rejected.step_mask, aggregation, neutral
    )

    if nonpositive == "clamp":
        losses = -F.logsigmoid(preference.clamp(min=0) * margin)
    else:
        losses = -F.logsigmoid(preference * margin)
        if nonpositive == "skip":
            losses = torch.where(preference > 0, losses, torch.zeros_like(losses))
        elif nonpositive != "train":
            raise ValueError(f"nonpositive must be one of {get_args(NonPositive)}, not {nonpositive!r}")
    return StepwiseLoss(losses, preference, margin)


def log_likelihood(side: Side, likelihood: Likelihood, anchor_to_reference: bool = False) -> Tensor:
    """Log-likelihood (or log-ratio) of each completion, (B,): nats per token for "mean", nats for "sum".

    Only tokens that belong to a step count, so padding and prompts can't change the value.

    Raises:
        ValueError: `likelihood` is neither "mean" nor "sum".
    """
    values = side.logps - side.ref_logps if anchor_to_reference else side.logps
    in_step = side.step_ids != NO_STEP
    total = torch.where(in_step, values, torch.zeros_like(values)).sum(dim=1)
    if likelihood == "sum":
        return total
    if likelihood == "mean":
        return total / in_step.sum(dim=1)
    raise ValueError(f"likelihood must be one of {get_args(Likelihood)}, not {likelihood!r}")


def aggregate_steps(rewards: Tensor, step_mask: Tensor, aggregation: Aggregation, neutral: float = 0.0) -> Tensor:
    """Reduce the rewards of each solution's steps to one number.

    In the literature: product (Let's Verify, arXiv 2305.20050), min (Math-Shepherd, arXiv 2312.08935), mean
    (RLHFlow), last. PURE (arXiv 2504.15275) finds that credit by sum collapses in reinforcement learning while
    credit by min doesn't.

    "until_error" sums up to and including the first step below the neutral value. A judge by likelihood gives full
    marks to steps that carry an error on faithfully; here they don't count.

    Args:
        rewards: (B, S); a product only means something for probabilities, the other words for any scale.
        step_mask: which entries are steps, bool, (B, S); at least one per row.
        aggregation: "sum", "mean", "min", "last", "product" or "until_error".
        neutral: the reward of a step that is as likely right as wrong: 0.5 for probabilities, else 0; only
            "until_error" reads it.

    Returns:
        (B,), in the unit of the rewards.

    Raises:
        ValueError: `aggregation` is none of the six words.
    """
    if aggregation == "sum":
        return rewards.masked_fill(~step_mask, 0).sum(dim=1)
    if aggregation == "mean":
        return rewards.masked_fill(~step_mask, 0).sum(dim=1) / step_mask.sum(dim=1)
    if aggregation == "min":
        return rewards.masked_fill(~step_mask, float("inf")).amin(dim=1)
    if aggregation == "last":
        last = step_mask.sum(dim=1, keepdim=True) - 1  # steps stand at the left
        return rewards.gather(1, last).squeeze(1)
    if aggregation == "product":
        return rewards.masked_fill(~step_mask, 1).prod(dim=1)
    if aggregation == "until_error":
        errors = ((rewards < neutral) & step_mask).int()
        counts = step_mask & (errors.cumsum(dim=1) == errors)  # no error before this step
        return rewards.masked_fill(~counts, 0).sum(dim=1)
    raise ValueError(f"aggregation must be one of {get_args(Aggregation)}, not {aggregation!r}")


def sum_per_step(values: Tensor, step_ids: Tensor, steps: int) -> Tensor:
    """Sum token values within each step.

    With log-ratios to the reference, times beta, this is the implicit process reward of arXiv 2412.01981.

    Args:
        values: (B, T).
        step_ids: index of each token's step, -1 for none, (B, T).
        steps: S, larger than every step id.

    Returns:
        (B, S); 0 for steps without tokens.
    """
    in_step = step_ids != NO_STEP
    sums = values.new_zeros(values.size(0), steps)
    return sums.scatter_add(1, step_ids.clamp(min=0), torch.where(in_step, values, torch.zeros_like(values)))
