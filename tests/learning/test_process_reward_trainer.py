"""Training a judge from labelled steps, on tiny real models."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import Trainer

from stepwise_dpo.errors import ConfigError, DataError, RunError
from stepwise_dpo.learning.head_settings import HeadSettings
from stepwise_dpo.learning.loading import load_policy, load_token_classifier
from stepwise_dpo.learning.process_metrics import tune_threshold
from stepwise_dpo.learning.process_reward_trainer import (
    ProcessRewardConfig,
    ProcessRewardTrainer,
    SolutionCollator,
    first_errors,
    judge_figures,
    language_nll,
    score_anew,
    step_losses,
)
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.preferences.formats import LabelledSolution

# Wrong steps contain an x; every second solution has one, at changing places.
SOLUTIONS = [
    LabelledSolution(
        f"p{number}",
        tuple(f"{number}{'x' if number % 2 and step == number % 3 else '+'}{step}" for step in range(3)),
        tuple(not (number % 2 and step == number % 3) for step in range(3)),
    )
    for number in range(40)
]
UNLABELLED = LabelledSolution("p", ("a", "b"), (None, None))
KINDS = ["t5 step_tag", "t5 verbalizer", "t5 likelihood", "llama step_tag", "llama token_classification"]


@pytest.fixture
def judge(request, causal_folder):
    return make_judge(request.param, str(causal_folder))


def make_judge(kind, causal_folder):
    family, head = kind.split()
    torch.manual_seed(0)
    if head == "token_classification":
        return LLMRewardModel(*load_token_classifier(causal_folder, new_head=True), HeadSettings(head))
    words = (
        {"tag": "#"} if head == "step_tag" else {"template": "{step} {right}{wrong}?"} if head == "verbalizer" else {}
    )
    return LLMRewardModel.from_pretrained("tiny" if family == "t5" else causal_folder, head=head, **words)


def arguments(folder, **changes):
    return ProcessRewardConfig(
        output_dir=str(folder),
        **{"use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 8, "learning_rate": 1e-2, **changes},
    )


def log_odds_of(judge, solutions):
    with torch.no_grad():
        return torch.cat(judge.log_odds([(solution.prompt, solution.steps) for solution in solutions]))


def gradients(judge, folder, batches, **changes):
    """The gradient of one optimiser step over these batches, as the Trainer itself sums it up."""
    size = len(batches[0])
    solutions = [solution for batch in batches for solution in batch]
    trainer = ProcessRewardTrainer(
        judge,
        arguments(
            folder,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=len(batches),
            max_steps=1,
            max_grad_norm=0,
            train_sampling_strategy="sequential",
            optim="sgd",
            learning_rate=1.0,
            lr_scheduler_type="constant",
            **changes,
        ),
        solutions,
    )
    before = [parameter.detach().clone() for parameter in judge.parameters()]
    trainer.train()
    change = [a - b.detach() for a, b in zip(before, judge.parameters(), strict=True)]
    return torch.cat([part.flatten() for part in change]), trainer.state.log_history[0]


@pytest.mark.parametrize("judge", KINDS[:2] + KINDS[3:], indirect=True)
def test_separable_steps_are_learnt_and_the_folder_is_the_same_judge(judge, tmp_path):
    trainer = ProcessRewardTrainer(judge, arguments(tmp_path, max_steps=120), SOLUTIONS, SOLUTIONS[:10])
    trainer.train()
    logged = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["step"] for line in logged] == list(range(1, 121))
    assert logged[-1]["loss"] < logged[0]["loss"] / 2
    metrics = trainer.evaluate()
    assert metrics["eval_step_accuracy"] > 0.95
    assert metrics["eval_auroc"] > 0.95
    assert metrics["eval_process_bench/f1"] > 90
    assert trainer.state.log_history[-1]["eval_loss"] == metrics["eval_loss"]

    trainer.save_model()
    assert not list(tmp_path.glob("*.bin"))  # only what is safe to share
    loaded = LLMRewardModel.from_pretrained(str(tmp_path))
    assert loaded.settings == judge.settings
    torch.testing.assert_close(log_odds_of(loaded, SOLUTIONS), log_odds_of(judge, SOLUTIONS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("judge", ["t5 likelihood"], indirect=True)
def test_likelihoods_learn_to_rank(judge, tmp_path):
    # A right step's every token has to become likely, which takes longer than to make wrong steps unlikelier.
    trainer = ProcessRewardTrainer(judge, arguments(tmp_path, max_steps=60), SOLUTIONS, SOLUTIONS)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] / 2
    assert after["eval_auroc"] > 0.95


@pytest.mark.parametrize("judge", KINDS, indirect=True)
def test_the_first_loss_is_the_formula(judge, tmp_path):
    unlabelled_step = LabelledSolution("q", ("1+1", "2x2", "3+3"), (True, None, False))
    batch = [SOLUTIONS[1], unlabelled_step]
    x = log_odds_of(judge, batch).double().tolist()
    labels = [True, False, True, True, None, False]
    losses = [math.log1p(math.exp(-x_ if y else x_)) for x_, y in zip(x, labels, strict=True) if y is not None]
    trainer = ProcessRewardTrainer(judge, arguments(tmp_path, max_steps=1), batch)
    trainer.train()
    line = trainer.state.log_history[0]
    assert line["loss"] == pytest.approx(sum(losses) / 5, rel=1e-4)
    hits = [(x_ > 0) == y for x_, y in zip(x, labels, strict=True) if y is not None]
    assert line["step_accuracy"] == sum(hits) / 5
    assert "lm_loss" not in line


def test_the_loss_is_the_two_way_cross_entropy_of_two_logits():
    logits = torch.randn(7, 2, generator=torch.Generator().manual_seed(0)) * 5
    labels = torch.tensor([1, 0, 1, 1, 0, 0, 1])
    expected = cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(step_losses(logits[:, 1] - logits[:, 0], labels.bool()), expected)


def test_extreme_verdicts_cost_what_they_should():
    losses = step_losses(torch.tensor([100.0, 100.0, -100.0]), torch.tensor([True, False, False]))
    assert losses.tolist() == pytest.approx([0.0, 100.0, 0.0])


@pytest.mark.parametrize("judge", ["t5 step_tag", "llama step_tag"], indirect=True)
def test_the_companion_is_the_mean_negative_log_likelihood_of_right_solutions(judge, tmp_path):
    batch = SOLUTIONS[:3]  # the second has a wrong step
    steps = load_policy("tiny").step_tokenizer() if judge.model.config.is_encoder_decoder else None
    nll, tokens = 0.0, 0
    for solution in (batch[0], batch[2]):
        completion = [*judge.tokenizer("\n".join(solution.steps), add_special_tokens=False)["input_ids"], 1]
        with torch.no_grad():
            if steps is not None:
                prompt = judge.tokenizer(solution.prompt)["input_ids"]
                logits = judge.model(input_ids=torch.tensor([prompt]), labels=torch.tensor([completion])).logits[0]
            else:
                prompt = judge.tokenizer(solution.prompt + "\n", add_special_tokens=False)["input_ids"]
                logits = judge.model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        nll += cross_entropy(logits, torch.tensor(completion), reduction="sum").item()
        tokens += len(completion)

    figures = judge_figures(batch, score_anew(judge, batch))
    trainer = ProcessRewardTrainer(judge, arguments(tmp_path, max_steps=1, lm_weight=0.5), batch)
    rows = trainer.data_collator(batch)["lm_rows"]
    assert len(rows) == 2
    assert language_nll(judge.model, rows, 0).item() == pytest.approx(nll, rel=1e-5)
    trainer.train()
    line = trainer.state.log_history[0]
    assert line["lm_loss"] == pytest.approx(nll / tokens, rel=1e-5)
    assert line["loss"] == pytest.approx(figures["loss"] + 0.5 * nll / tokens, rel=1e-4)


def test_two_batches_of_four_are_one_of_eight(tmp_path, causal_folder):
    # Different numbers of steps, labels and tokens: a mean of the batches' means would be another gradient.
    uneven = [
        LabelledSolution("a", ("1+1",), (True,)),
        LabelledSolution("b", ("1x1", "2"), (False, None)),
        LabelledSolution("c", ("1",), (False,)),
        LabelledSolution("d", ("1",), (False,)),
        *SOLUTIONS[4:7],
        LabelledSolution("e", tuple("123456789"), (True,) * 9),
    ]
    found = [
        gradients(make_judge("t5 step_tag", str(causal_folder)), tmp_path, batches, lm_weight=0.5)
        for batches in ([uneven[:4], uneven[4:]], [uneven])
    ]
    (accumulated, accumulated_line), (whole, whole_line) = found
    torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-6)
    assert whole.abs().max() > 1e-3
    for name in ("loss", "step_accuracy", "lm_loss"):
        assert accumulated_line[name] == pytest.approx(whole_line[name], rel=1e-5)


def test_unlabelled_steps_teach_nothing(tmp_path, causal_folder):
    solution = LabelledSolution("a", ("1+1", "2x2", "3+3"), (True, None, None))
    cut = LabelledSolution("a", ("1+1",), (True,))
    # Llama reads from left to right, so that steps after the labelled one can't change its verdict.
    one, other = (
        gradients(make_judge("llama step_tag", str(causal_folder)), tmp_path, [[s, UNLABELLED]])[0]
        for s in (solution, cut)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(tmp_path, causal_folder):
    def trained(folder, **changes):
        judge = make_judge("t5 step_tag", str(causal_folder))
        how = arguments(tmp_path / folder, max_steps=4, save_strategy="steps", save_steps=2, **changes)
        return ProcessRewardTrainer(judge, how, SOLUTIONS), judge

    trainer, whole = trained("whole")
    trainer.train()
    again, resumed = trained("again")
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    torch.testing.assert_close(log_odds_of(resumed, SOLUTIONS), log_odds_of(whole, SOLUTIONS))
    # A checkpoint is a judge, too.
    assert LLMRewardModel.from_pretrained(str(tmp_path / "whole" / "checkpoint-2")).settings == whole.settings


def test_training_leaves_no_old_scores_and_no_wrapped_forward(tmp_path, causal_folder):
    judge = make_judge("t5 step_tag", str(causal_folder))
    texts = [(SOLUTIONS[0].prompt, SOLUTIONS[0].steps)]
    old = judge.score_solutions(texts)
    ProcessRewardTrainer(judge, arguments(tmp_path, max_steps=2, bf16=True), SOLUTIONS).train()
    assert judge.score_solutions(texts) != old
    assert "forward" not in vars(judge.model)
    assert not judge.model.training


def test_figures_by_hand():
    solutions = [
        LabelledSolution("a", ("1", "2"), (True, True)),
        LabelledSolution("b", ("1", "2", "3"), (True, False, False)),
        LabelledSolution("c", ("1", "2"), (None, True)),  # nobody knows where its first error is
    ]
    log_odds = [[2.0, 1.0], [1.0, -1.0, 3.0], [0.5, -0.5]]
    figures = judge_figures(solutions, log_odds)
    nats = [math.log1p(math.exp(-x)) for x in (2.0, 1.0, 1.0, 1.0, -3.0, -0.5)]
    assert figures == pytest.approx(
        {
            "loss": sum(nats) / 6,
            "step_accuracy": 4 / 6,
            "auroc": 1.0,  # what follows an error doesn't count
            "process_bench/acc1": 100,
            "process_bench/acc2": 100,
            "process_bench/f1": 100,
        }
    )
    true, scores = first_errors(solutions, log_odds)
    assert true == [-1, 1]
    assert scores[1][2] == pytest.approx(1 / (1 + math.exp(-3)))
    assert 0.3 < tune_threshold(true, scores) < 0.7
    assert judge_figures(solutions, log_odds, threshold=0.1)["process_bench/acc1"] == 0
    # What isn't defined is not there, rather than a neutral number.
    assert judge_figures(solutions[:1], log_odds[:1]).keys() == {"loss", "step_accuracy", "process_bench/acc2"}
    with pytest.raises(DataError, match="no step of these solutions is labelled"):
        judge_figures([UNLABELLED], [[0.0, 0.0]])


def test_the_collator_by_hand():
    batch = SolutionCollator()([SOLUTIONS[1], UNLABELLED])
    assert batch["solutions"] == [("p1", ["1+0", "1x1", "1+2"]), ("p", ["a", "b"])]
    assert batch["labels"].tolist() == [1, 0, 1, -100, -100]
    assert batch["lm_rows"] == []


def test_what_is_refused(tmp_path, causal_folder):
    judge = make_judge("t5 step_tag", str(causal_folder))
    with pytest.raises(DataError, match="no step of the training solutions is labelled"):
        ProcessRewardTrainer(judge, arguments(tmp_path), [UNLABELLED])
    with pytest.raises(DataError, match="no training solution is labelled right in all steps"):
        ProcessRewardTrainer(judge, arguments(tmp_path, lm_weight=1), SOLUTIONS[1::2])
    with pytest.raises(DataError, match="no solutions to evaluate on"):
        ProcessRewardTrainer(judge, arguments(tmp_path), SOLUTIONS).evaluate()
    with pytest.raises(ConfigError, match=r"lm_weight must be a number from 0 on, not -1"):
        arguments(tmp_path, lm_weight=-1)
    classifier = make_judge("llama token_classification", str(causal_folder))
    with pytest.raises(ConfigError, match="lm_weight must be 0 for head 'token_classification'"):
        ProcessRewardTrainer(classifier, arguments(tmp_path, lm_weight=1), SOLUTIONS)
    trainer = ProcessRewardTrainer(judge, arguments(tmp_path), SOLUTIONS)
    with pytest.raises(ConfigError, match="gives no outputs"):
        trainer.compute_loss(judge.model, {}, return_outputs=True)


@pytest.mark.parametrize("lm_weight", [0, 1])
def test_a_solution_beyond_the_models_positions_is_found_before_training(tmp_path, causal_folder, lm_weight):
    long = LabelledSolution("how long?", ("1" * 5000,), (True,))
    judge = make_judge("llama step_tag", str(causal_folder))
    for solutions, held_out in (([*SOLUTIONS, long], None), (SOLUTIONS, [long])):
        with pytest.raises(
            DataError, match=r"the solution of 'how long\?': .* 10 tokens .* 5\d\d\d tokens .* only 4096"
        ):
            ProcessRewardTrainer(judge, arguments(tmp_path, lm_weight=lm_weight), solutions, held_out)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path, causal_folder):
    judge = make_judge("t5 step_tag", str(causal_folder))
    with torch.no_grad():
        next(judge.parameters()).fill_(torch.nan)
    with pytest.raises(
        RunError, match="the loss became nan at global_step 0, on 8 solutions, the first of which begins"
    ):
        ProcessRewardTrainer(judge, arguments(tmp_path), SOLUTIONS).train()


def test_the_parent_still_has_what_is_overridden():
    for name in ("get_batch_samples", "compute_loss", "log", "evaluate", "train", "save_model"):
        assert callable(getattr(Trainer, name))
    assert Trainer.loss_is_scaled_for_ga is None
