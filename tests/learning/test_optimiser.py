from copy import deepcopy

import torch
from transformers import T5ForConditionalGeneration

from stepwise_dpo.learning.optimiser import POSITION_RATE, MuonAndAdamW
from stepwise_dpo.learning.tiny import build_tiny_model


def step(model: T5ForConditionalGeneration, optimiser: MuonAndAdamW, ids: list[int]) -> None:
    row = torch.tensor([ids])
    model(input_ids=row, labels=row).loss.backward()
    optimiser.step()
    optimiser.zero_grad()


def test_every_parameter_is_in_one_part():
    model = build_tiny_model()
    optimiser = MuonAndAdamW(model, 1e-3, 3e-3)
    found = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    assert sorted(map(id, found)) == sorted(map(id, model.parameters()))
    matrices, others, positions = optimiser.param_groups
    assert all(parameter.ndim == 2 for parameter in matrices["params"])
    assert model.shared.weight in set(others["params"])  # an embedding's rows are not a map
    assert [parameter.shape[0] for parameter in positions["params"]] == [32, 32]
    assert [group["lr"] for group in optimiser.param_groups] == [3e-3, 1e-3, POSITION_RATE * 1e-3]


def test_a_scheduler_reaches_both_parts():
    model = build_tiny_model()
    optimiser = MuonAndAdamW(model, 1e-3, 3e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: 0.0)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    step(model, optimiser, [5, 6, 1])
    scheduler.step()
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_a_checkpoint_goes_on_to_the_last_bit():
    models = [build_tiny_model(), build_tiny_model()]
    optimisers = [MuonAndAdamW(model, 1e-3, 3e-3) for model in models]
    step(models[0], optimisers[0], [5, 6, 1])
    models[1].load_state_dict(models[0].state_dict())
    optimisers[1].load_state_dict(deepcopy(optimisers[0].state_dict()))  # as through a file
    for group in (*optimisers[0].param_groups, *optimisers[1].param_groups):
        group["lr"] = 1e-2
    for model, optimiser in zip(models, optimisers, strict=True):
        step(model, optimiser, [7, 8, 9, 1])
    one, other = (model.state_dict() for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)
