import copy
import math
import re
from dataclasses import fields
from itertools import chain

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM, TrainerCallback, TrainingArguments
from trl import DPOConfig, DPOTrainer
from trl.trainer import dpo_trainer

from stepwise_dpo.errors import ConfigError, DataError, RunError
from stepwise_dpo.learning.loading import load_policy
from stepwise_dpo.learning.names import LOSS_TYPES, SMOOTHED_LOSS_TYPES
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.learning.sound_trainer import SoundTrainer
from stepwise_dpo.learning.step_dataset import StepCollator, build_dataset
from stepwise_dpo.learning.tokenization import StepTokenizer
from stepwise_dpo.learning.trainer import StepwiseDPOConfig, StepwiseDPOTrainer
from stepwise_dpo.learning.uneven import keep_first, real_examples
from stepwise_dpo.preferences.pairs import PreferencePair, Step

LN_2 = math.log(2)


@pytest.fixture(params=["tiny", "causal"])
def policy(request, causal_folder):
    return load_policy("tiny" if request.param == "tiny" else str(causal_folder))


def make_trainer(policy, pairs, tmp_path, *, eval_pairs=None, reward_model=None, **options):
    settings = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "learning_rate": 1e-3,
        "max_steps": 3,
        "max_length": None,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        **options,
    }
    return StepwiseDPOTrainer(
        policy.model,
        StepwiseDPOConfig(**settings),
        pairs,
        policy.tokenizer,
        eval_pairs=eval_pairs,
        reward_model=reward_model,
    )


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def plain_step_logps(policy, pair, side):
    """Log-probability of every token of a solution, one row, one forward of the class itself."""
    steps = StepTokenizer(policy.tokenizer, policy.is_encoder_decoder)
    prompt = torch.tensor([steps.encode_prompt(pair.prompt)])
    ids, step_ids = steps.encode_steps(getattr(pair, side))
    completion = torch.tensor([ids])
    with torch.no_grad():
        if policy.is_encoder_decoder:
            logits = type(policy.model).forward(policy.model, input_ids=prompt, labels=completion).logits[0]
        else:
            row = torch.cat([prompt, completion], 1)
            logits = type(policy.model).forward(policy.model, input_ids=row).logits[0, prompt.size(1) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(ids)), completion[0]], torch.tensor(step_ids)


def formula(policy, judge, pairs, *, likelihood="mean"):
    """The step-wise loss as written in the training log, one pair at a time."""
    total = 0.0
    for pair in pairs:
        rewards, likelihoods = {}, {}
        for side in ("chosen", "rejected"):
            rewards[side] = judge.score(pair.prompt, [step.text for step in getattr(pair, side)]).sum().item()
            logps, _ = plain_step_logps(policy, pair, side)
            likelihoods[side] = (logps.mean() if likelihood == "mean" else logps.sum()).item()
        x = (rewards["chosen"] - rewards["rejected"]) * (likelihoods["chosen"] - likelihoods["rejected"])
        total += math.log1p(math.exp(-x))
    return total / len(pairs)


def test_every_overridden_name_exists_upstream():
    for name in (
        "_prepare_dataset",
        "_send_telemetry",
        "_set_signature_columns_if_needed",
        "create_optimizer",
        "get_batch_samples",
        "compute_loss",
        "evaluate",
        "save_model",
        "_get_grad_norm",
        "_issue_warnings_after_load",
        "_load_from_checkpoint",
        "_save_checkpoint",
    ):
        assert callable(getattr(DPOTrainer, name)), name
        assert name in vars(StepwiseDPOTrainer) or name in vars(SoundTrainer), name
    assert DPOTrainer.loss_is_scaled_for_ga is False  # read by the Trainer
    assert callable(DPOTrainer.compute_ref_log_probs)
    assert callable(dpo_trainer.add_fused_lm_head)
    assert callable(dpo_trainer.DataCollatorForPreference.torch_call)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_first_dpo_loss_is_ln_2(policy, pairs, tmp_path, seed):
    # In train mode, with shuffling, uneven lengths and dropout in the configuration of the causal model.
    trainer = make_trainer(policy, pairs, tmp_path, seed=seed, max_steps=1)
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(LN_2, abs=1e-6)
    assert trainer.state.log_history[0]["rewards/margins"] == 0


def test_dpo_learns(policy, pairs, tmp_path):
    trainer = make_trainer(policy, pairs[:2], tmp_path, max_steps=8)
    trainer.train()
    assert losses(trainer)[-1] < 0.5 * LN_2
    assert trainer.state.log_history[-2]["rewards/accuracies"] == 1


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_every_loss_type_of_trl_trains_an_encoder_decoder(pairs, tmp_path, loss_type):
    smoothing = {"label_smoothing": 0.1} if loss_type in SMOOTHED_LOSS_TYPES else {}
    trainer = make_trainer(load_policy("tiny"), pairs[:4], tmp_path, loss_type=[loss_type], max_steps=2, **smoothing)
    trainer.train()
    assert all(math.isfinite(loss) for loss in losses(trainer))
    assert losses(trainer)[0] != losses(trainer)[1]


def test_label_smoothing_is_read_by_the_loss_types_that_are_listed(pairs, tmp_path):
    """Away from the reference, where smoothing makes a difference."""
    trainer = make_trainer(load_policy("tiny"), pairs[:2], tmp_path, max_steps=1)
    trainer.train()
    (batch,) = trainer.get_train_dataloader()

    def loss(loss_type, label_smoothing):
        trainer.loss_types, trainer.label_smoothing = [loss_type], label_smoothing
        return trainer.compute_loss(trainer.model, batch).item()

    changed = {kind for kind in LOSS_TYPES if loss(kind, 0.1) != pytest.approx(loss(kind, 0.2), rel=1e-4)}
    assert changed == set(SMOOTHED_LOSS_TYPES)


READ = {  # TRL's own options that act here: by name another value than the default, and what else has to be set
    "learning_rate": (1e-2, {}),
    "max_length": (1_000, {}),
    "pad_to_multiple_of": (64, {}),
    "loss_type": (["hinge"], {}),
    "loss_weights": ([0.5], {}),
    "ld_alpha": (0.5, {}),
    "f_divergence_type": ("forward_kl", {}),
    "f_alpha_divergence_coef": (0.3, {"f_divergence_type": "alpha_divergence"}),
    "label_smoothing": (0.2, {"loss_type": ["robust"]}),
    "beta": (0.5, {}),
    "use_weighting": (True, {}),
    "discopop_tau": (0.1, {"loss_type": ["discopop"]}),
    "activation_offloading": (True, {}),
    "router_aux_loss_coef": (0.1, {}),
    "dataset_num_proc": (2, {}),  # harmless: more processes for what one does fast enough
}
UNREAD = {
    "model_init_kwargs": {"dtype": "float16"},
    "trust_remote_code": True,
    "disable_dropout": False,
    "truncation_mode": "keep_end",
    "padding_free": True,
    "precompute_ref_log_probs": True,
    "precompute_ref_batch_size": 2,
    "sync_ref_model": True,
    "ref_model_mixup_alpha": 0.5,
    "ref_model_sync_steps": 2,
    "pad_token": "<pad>",
    # Transformers'
    "label_smoothing_factor": 0.1,
    "batch_eval_metrics": True,
    "include_for_metrics": ["loss"],
    "push_to_hub": True,
    "load_best_model_at_end": True,
    "length_column_name": "tokens",
}


def test_every_option_of_trl_acts_or_is_refused():
    inherited = {field.name for field in fields(TrainingArguments)} - {"learning_rate"}
    own = {field.name for field in fields(DPOConfig)} - inherited
    assert own == READ.keys() | UNREAD.keys() - inherited


@pytest.mark.parametrize("name", UNREAD)
def test_an_option_that_nothing_reads_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=rf"^{name}=.* would do nothing here: .*; leave it out$"):
        StepwiseDPOConfig(str(tmp_path), use_cpu=True, **{name: UNREAD[name]})


@pytest.mark.parametrize("name", READ)
def test_an_option_that_only_the_other_loss_reads_is_refused(tmp_path, name):
    value, others = READ[name]
    options = {name: value, **others}
    assert StepwiseDPOConfig(str(tmp_path), use_cpu=True, **options).loss == "dpo"
    if name in ("learning_rate", "max_length", "pad_to_multiple_of", "beta", "activation_offloading",
                "router_aux_loss_coef", "dataset_num_proc"):  # fmt: skip
        assert StepwiseDPOConfig(str(tmp_path), use_cpu=True, loss="stepwise", **options).loss == "stepwise"
        return
    with pytest.raises(ConfigError, match="would do nothing here: only loss 'dpo' reads it"):
        StepwiseDPOConfig(str(tmp_path), use_cpu=True, loss="stepwise", **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"likelihood": "sum"}, "likelihood='sum' would do nothing here: only loss 'stepwise' reads it"),
        ({"nonpositive": "skip"}, "nonpositive='skip' would do nothing here"),
        ({"anchor_to_reference": True}, "anchor_to_reference=True would do nothing here"),
        (
            {"label_smoothing": 0.1},
            "label_smoothing=0.1 would do nothing here: of TRL's loss types only exo_pair, robust",
        ),
        ({"discopop_tau": 0.1}, "only loss_type 'discopop' reads it"),
        ({"f_alpha_divergence_coef": 0.1}, "only f_divergence_type 'alpha_divergence' reads it"),
        ({"train_sampling_strategy": "batch_rebalance"}, "choose 'group_by_length'"),
    ],
)
def test_an_option_that_this_loss_doesnt_read_is_refused(tmp_path, options, expected):
    with pytest.raises(ConfigError, match=expected):
        StepwiseDPOConfig(str(tmp_path), use_cpu=True, **options)


def test_several_held_out_sets_are_refused(pairs, tmp_path):
    with pytest.raises(ConfigError, match=r"eval_pairs must be one sequence.*join them, or measure each"):
        make_trainer(load_policy("tiny"), pairs[:2], tmp_path, eval_pairs={"a": pairs[2:4], "b": pairs[4:6]})


def test_noise_on_embeddings_acts_or_is_refused(pairs, tmp_path, causal_folder):
    with pytest.raises(ConfigError, match="neftune_noise_alpha=5 would do nothing here"):
        make_trainer(load_policy("tiny"), pairs[:2], tmp_path, neftune_noise_alpha=5)
    trainer = make_trainer(load_policy(str(causal_folder)), pairs[:2], tmp_path, neftune_noise_alpha=5, max_steps=1)
    trainer.train()
    assert losses(trainer)[0] != pytest.approx(LN_2, abs=1e-4)


def test_batches_are_grouped_by_length(pairs, tmp_path):
    """With 48 examples in batches of two, the twelve of a group are sorted."""
    trainer = make_trainer(
        load_policy("tiny"), pairs * 4, tmp_path, train_sampling_strategy="group_by_length", eval_pairs=pairs[:3],
        eval_on_start=True, max_steps=1, frozen_scores="as_needed",
    )  # fmt: skip
    lengths = list(trainer.train_dataset["length"])
    for row, length in zip(trainer.train_dataset, lengths, strict=True):
        assert length == len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    batches = [batch["row"].tolist() for batch in trainer.get_train_dataloader()]
    assert sorted(chain.from_iterable(batches)) == list(range(48))
    between_any_two = sum(abs(a - b) for a in lengths for b in lengths) / 48**2
    assert sum(abs(lengths[a] - lengths[b]) for a, b in batches) / 24 < between_any_two / 2
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(LN_2, abs=1e-6)


def test_padding_to_a_multiple_changes_the_width_only(policy, pairs, tmp_path):
    trainer = make_trainer(policy, pairs[:4], tmp_path, pad_to_multiple_of=64, max_steps=2)
    widths = [batch["input_ids"].size(1) for batch in trainer.get_train_dataloader()]
    assert all(width % 64 == 0 for width in widths)
    trainer.train()
    plain = make_trainer(load_policy(policy.name), pairs[:4], tmp_path, max_steps=2)
    plain.train()
    assert losses(trainer) == pytest.approx(losses(plain), rel=1e-4)


def test_checkpoints_are_kept_by_our_rule_where_a_best_one_is_known(pairs, tmp_path):
    trainer = make_trainer(
        load_policy("tiny"), pairs[:4], tmp_path, eval_pairs=pairs[4:6], eval_strategy="steps", eval_steps=1,
        save_strategy="steps", save_steps=1, save_total_limit=1, metric_for_best_model="loss", max_steps=3,
    )  # fmt: skip
    trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    assert trainer.args.save_total_limit == 1


def test_experts_are_balanced_under_the_stepwise_loss_too(pairs, tmp_path):
    """The router's own loss is TRL's; its weight alone makes the difference between the two losses."""

    def first_loss(weight):
        torch.manual_seed(0)
        tokenizer = load_policy("tiny").tokenizer
        model = MixtralForCausalLM(
            MixtralConfig(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                num_attention_heads=2, num_key_value_heads=2, num_local_experts=2, pad_token_id=0, eos_token_id=1,
                bos_token_id=None, tie_word_embeddings=False,
            )
        )  # fmt: skip
        trainer = StepwiseDPOTrainer(
            model,
            StepwiseDPOConfig(
                str(tmp_path), loss="stepwise", router_aux_loss_coef=weight, max_steps=1, max_length=None,
                use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no",
            ),
            pairs[:2],
            tokenizer,
            reward_model=LLMRewardModel.from_pretrained("tiny"),
        )  # fmt: skip
        trainer.train()
        logged = trainer.state.log_history[0]
        return logged["loss"], logged.get("aux_loss")

    without, none = first_loss(0.0)
    balanced, balance = first_loss(0.5)
    assert none is None
    assert balanced - without == pytest.approx(0.5 * balance, rel=1e-4)


def test_the_known_loss_types_are_those_of_trl(pairs, tmp_path):
    trainer = make_trainer(load_policy("tiny"), pairs[:2], tmp_path, loss_type=["nonsense"])
    with pytest.raises(ValueError, match="Unknown loss type") as error:
        trainer.train()
    listed = str(error.value).split("[")[1]
    assert sorted(re.findall(r"'(\w+)'", listed)) == sorted(LOSS_TYPES)


@pytest.mark.parametrize("loss_type", [["hinge"], ["ipo"], ["sigmoid", "sft"], ["sigmoid_norm"]])
def test_other_loss_types_of_trl_are_handed_over(pairs, tmp_path, loss_type):
    trainer = make_trainer(load_policy("tiny"), pairs[:4], tmp_path, loss_type=loss_type, max_steps=1)
    trainer.train()
    # With policy == reference: hinge 1, ipo (0 - 1 / (2 * 0.1))**2, sigmoid_norm ln 2; sft adds the chosen side's NLL.
    expected = {"hinge": 1.0, "ipo": 25.0, "sigmoid_norm": LN_2}.get(loss_type[0])
    if expected is not None:
        assert losses(trainer)[0] == pytest.approx(expected, abs=1e-5)
    else:
        assert losses(trainer)[0] > LN_2 + 1


def test_encoder_decoder_metrics_are_those_of_trl(pairs, tmp_path):
    trainer = make_trainer(load_policy("tiny"), pairs, tmp_path, max_steps=1)
    trainer.train()
    keys = {
        "loss", "grad_norm", "learning_rate", "entropy", "num_tokens", "mean_token_accuracy", "logits/chosen",
        "logits/rejected", "logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected",
        "rewards/accuracies", "rewards/margins",
    }  # fmt: skip
    assert keys <= trainer.state.log_history[0].keys()


def test_ld_alpha_of_trl_applies_to_policy_and_cached_reference_alike(pairs, tmp_path):
    trainer = make_trainer(load_policy("tiny"), pairs, tmp_path, ld_alpha=0.5, max_steps=1)
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(LN_2, abs=1e-6)


@pytest.mark.parametrize("likelihood", ["mean", "sum"])
def test_the_first_stepwise_loss_equals_the_formula(policy, pairs, tmp_path, likelihood):
    judge = LLMRewardModel.from_pretrained("tiny")
    expected = formula(copy.deepcopy(policy), judge, pairs[:2], likelihood=likelihood)
    trainer = make_trainer(
        policy, pairs[:2], tmp_path, loss="stepwise", reward_model=judge, likelihood=likelihood, max_steps=1
    )
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(expected, rel=1e-5)


def test_stepwise_training_lowers_its_loss(policy, pairs, tmp_path):
    judge = LLMRewardModel.from_pretrained("tiny")
    trainer = make_trainer(policy, pairs[:2], tmp_path, loss="stepwise", reward_model=judge, max_steps=20)
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0] - 0.01


def test_process_rewards_are_logged_per_pair(pairs, tmp_path):
    judge = LLMRewardModel.from_pretrained("tiny")
    rewards = judge.score_pairs(pairs[:2])
    preferences = [sum(pair.chosen) - sum(pair.rejected) for pair in rewards]
    trainer = make_trainer(load_policy("tiny"), pairs[:2], tmp_path, reward_model=judge, max_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["process_rewards/preference"] == pytest.approx(sum(preferences) / 2, abs=1e-5)
    assert logged["process_rewards/chosen"] == pytest.approx(sum(sum(pair.chosen) for pair in rewards) / 2, abs=1e-5)
    assert logged["process_rewards/negative_fraction"] == sum(p < 0 for p in preferences) / 2


def test_step_logratios_at_evaluation(policy, pairs, tmp_path):
    reference = copy.deepcopy(policy)
    trainer = make_trainer(
        policy, pairs[:4], tmp_path, eval_pairs=pairs[4:9], eval_strategy="steps", eval_steps=3, max_steps=3
    )
    trainer.train()
    assert sorted(trainer.eval_step_logratios) == [0, 1, 2, 3, 4]
    every = {"chosen": [], "rejected": []}
    for row, pair in enumerate(pairs[4:9]):
        for side, values in trainer.eval_step_logratios[row].items():
            now, step_ids = plain_step_logps(policy, pair, side)
            before, _ = plain_step_logps(reference, pair, side)
            expected = [(now - before)[step_ids == step].sum().item() for step in range(len(getattr(pair, side)))]
            assert values == pytest.approx(expected, abs=2e-3)
            every[side].append(values)
    logged = next(entry for entry in trainer.state.log_history if "eval_loss" in entry)
    # Batches of 2, 2 and 1 pairs; every figure is a mean over steps or pairs, not over batches.
    for side, values in every.items():
        steps = list(chain.from_iterable(values))
        assert logged[f"eval_step_logratios/{side}"] == pytest.approx(sum(steps) / len(steps), abs=1e-3)
        rewards = [0.1 * sum(ratios) for ratios in values]
        assert logged[f"eval_rewards/{side}"] == pytest.approx(sum(rewards) / 5, abs=1e-3)
        logps = [plain_step_logps(policy, pair, side)[0].sum().item() for pair in pairs[4:9]]
        assert logged[f"eval_logps/{side}"] == pytest.approx(sum(logps) / 5, rel=1e-4)


def test_the_reference_is_the_model_as_it_was_and_computed_once(policy, pairs, tmp_path):
    calls = []
    policy.model.register_forward_hook(lambda *_: calls.append(1))  # deep copies keep their hooks
    trainer = make_trainer(policy, pairs[:4], tmp_path, num_train_epochs=3, max_steps=-1)
    assert len(calls) == 2  # two batches, before training
    assert trainer.ref_model is None
    row = trainer.train_dataset[1]
    for side in ("chosen", "rejected"):
        expected, _ = plain_step_logps(policy, pairs[1], side)
        assert row[f"{side}_ref_token_logps"] == pytest.approx(expected.tolist(), abs=1e-4)
    calls.clear()
    trainer.train()
    assert len(calls) == 6  # two batches in three epochs: nothing but the policy


@pytest.mark.parametrize("loss", ["dpo", "stepwise"])
def test_frozen_models_score_as_needed_what_they_score_ahead(policy, pairs, tmp_path, loss):
    """Two epochs of uneven, accumulated batches with evaluations: the same metrics, but for rounding."""
    histories = []
    for frozen_scores in ("ahead", "as_needed"):
        trainer = make_trainer(
            load_policy(policy.name),
            pairs[:5],
            tmp_path / frozen_scores,
            eval_pairs=pairs[5:8],
            reward_model=LLMRewardModel.from_pretrained("reward"),
            loss=loss,
            max_steps=-1,
            num_train_epochs=2,
            gradient_accumulation_steps=2,
            eval_strategy="epoch",
            frozen_scores=frozen_scores,
        )
        trainer.train()
        histories.append(
            [
                {key: value for key, value in entry.items() if not key.endswith(("runtime", "per_second"))}
                for entry in trainer.state.log_history
            ]
        )
    ahead, as_needed = histories
    assert [entry.keys() for entry in as_needed] == [entry.keys() for entry in ahead]
    for first, second in zip(ahead, as_needed, strict=True):
        assert second == pytest.approx(first, rel=1e-5, abs=1e-6)
    if loss == "dpo":
        assert as_needed[0]["loss"] == pytest.approx(LN_2, abs=1e-6)
        assert any(entry.get("rewards/margins") for entry in as_needed)  # later the reference is not the policy


def test_what_training_meets_first_is_met_alike_beforehand(pairs, tmp_path):
    def trainer(name):
        return make_trainer(
            load_policy("tiny"),
            pairs[:5],
            tmp_path / name,
            reward_model=LLMRewardModel.from_pretrained("reward"),
            loss="stepwise",
            max_steps=3,
            frozen_scores="as_needed",
        )

    one, other = trainer("one"), trainer("other")
    one.train()
    other.meet_first_epoch()
    assert one._met["train"].keys() == other._met["train"].keys() == set(range(5))
    for row, sides in one._met["train"].items():
        assert all(torch.equal(a, b) for a, b in zip(sides, other._met["train"][row], strict=True))


def test_a_given_reference_is_used(pairs, tmp_path, causal_folder):
    policy, reference = load_policy(str(causal_folder)), load_policy(str(causal_folder))
    with torch.no_grad():
        for parameter in reference.model.parameters():
            parameter.mul_(1.5)
    trainer = StepwiseDPOTrainer(
        policy.model,
        StepwiseDPOConfig(output_dir=str(tmp_path), max_length=None, use_cpu=True, report_to=[], disable_tqdm=True),
        pairs[:2],
        policy.tokenizer,
        ref_model=reference.model,
    )
    expected, _ = plain_step_logps(reference, pairs[0], "chosen")
    assert trainer.train_dataset[0]["chosen_ref_token_logps"] == pytest.approx(expected.tolist(), abs=1e-4)


def test_training_the_reward_model(pairs, tmp_path):
    judge = LLMRewardModel.from_pretrained("tiny")
    before = copy.deepcopy(judge.state_dict())
    policy = load_policy("tiny")
    expected = formula(copy.deepcopy(policy), judge, pairs[:2])
    trainer = make_trainer(
        policy, pairs[:2], tmp_path, loss="stepwise", reward_model=judge, train_reward_model=True, max_steps=2
    )
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[i] for i in range(2)]))
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch).backward()
    gradients = [p.grad for p in judge.parameters() if p.grad is not None]
    assert sum(gradient.abs().sum().item() for gradient in gradients) > 0
    trainer.model.zero_grad()
    judge.zero_grad()

    trainer.train()
    assert losses(trainer)[0] == pytest.approx(expected, rel=1e-5)
    changed = [name for name, value in judge.state_dict().items() if not torch.equal(value, before[name])]
    assert changed


def test_the_reward_models_gradient_is_that_of_one_optimiser_step(pairs, tmp_path):
    """With a learning rate of 0 and one batch, each optimiser step sees the same gradient, unless it piles up."""
    judge = LLMRewardModel.from_pretrained("tiny")
    norms = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, *args, **kwargs):
            norms.append(torch.stack([p.grad.norm() for p in judge.parameters() if p.grad is not None]).norm().item())

    trainer = make_trainer(
        load_policy("tiny"), pairs[:2], tmp_path, loss="stepwise", reward_model=judge, train_reward_model=True,
        learning_rate=0.0, max_grad_norm=1e-3,
    )  # fmt: skip
    trainer.add_callback(Watch())  # after the callback that clips
    trainer.train()
    assert norms == pytest.approx([1e-3] * 3, rel=1e-2)
    assert all(p.grad is None or not p.grad.any() for p in judge.parameters())


@pytest.mark.parametrize("loss", ["dpo", "stepwise"])
def test_every_pair_of_an_optimiser_step_weighs_the_same(pairs, tmp_path, loss):
    """Seven pairs, four for an optimiser step: the second has three, or batches of two and of one."""

    def trained(batch_size, accumulation):
        gradients = []

        class Keep(TrainerCallback):
            def on_pre_optimizer_step(self, *args, model, **kwargs):
                weights = (weight.grad for weight in model.parameters() if weight.grad is not None)
                gradients.append(torch.cat([gradient.flatten() for gradient in weights]))

        trainer = make_trainer(
            load_policy("tiny"),
            pairs[:7],
            tmp_path,
            reward_model=LLMRewardModel.from_pretrained("reward"),
            loss=loss,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            learning_rate=0,
            max_grad_norm=0,
            max_steps=-1,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
        )
        trainer.add_callback(Keep())
        trainer.train()
        return torch.stack(gradients), losses(trainer)

    accumulated, accumulated_losses = trained(2, 2)
    whole, whole_losses = trained(4, 1)
    alone, alone_losses = trained(1, 1)
    means = torch.stack([alone[:4].mean(dim=0), alone[4:].mean(dim=0)])
    for expected in (whole, means):
        scale = expected.abs().amax(dim=1)  # (2,)
        # Batches of other shapes round otherwise: float32 leaves up to 1e-5, of full batches too.
        assert ((accumulated - expected).abs().amax(dim=1) / scale).tolist() == pytest.approx([0, 0], abs=2e-5)
    for expected in (whole_losses, [sum(alone_losses[:4]) / 4, sum(alone_losses[4:]) / 3]):
        assert accumulated_losses == pytest.approx(expected, rel=1e-5)


def test_a_frozen_reward_model_stays_as_it_is(pairs, tmp_path):
    judge = LLMRewardModel.from_pretrained("tiny")
    before = copy.deepcopy(judge.state_dict())
    make_trainer(load_policy("tiny"), pairs[:2], tmp_path, loss="stepwise", reward_model=judge).train()
    assert all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())


def test_collator_layout():
    """Rows: chosen of both pairs, then rejected; a prompt, b/c chosen, d/e rejected, 0 padding."""
    examples = [
        {
            "row": 5, "prompt_ids": [1, 2], "chosen_ids": [3, 4, 5], "chosen_step_ids": [0, 0, 1], "rejected_ids": [6],
            "rejected_step_ids": [0], "chosen_process_rewards": [0.1, 0.2], "rejected_process_rewards": [0.3],
            "chosen_ref_token_logps": [-1.0, -2.0, -3.0], "rejected_ref_token_logps": [-4.0],
        },
        {
            "row": 2, "prompt_ids": [7], "chosen_ids": [8], "chosen_step_ids": [0], "rejected_ids": [9, 9],
            "rejected_step_ids": [0, 1], "chosen_process_rewards": [0.4], "rejected_process_rewards": [0.5, 0.6],
            "chosen_ref_token_logps": [-5.0], "rejected_ref_token_logps": [-6.0, -7.0],
        },
    ]  # fmt: skip
    batch = StepCollator(pad_token_id=0)(examples)
    assert batch["row"].tolist() == [5, 2]
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [7, 8, 0, 0, 0], [1, 2, 6, 0, 0], [7, 9, 9, 0, 0]]
    assert batch["step_ids"].tolist() == [
        [-1, -1, 0, 0, 1],
        [-1, 0, -1, -1, -1],
        [-1, -1, 0, -1, -1],
        [-1, 0, 1, -1, -1],
    ]
    assert batch["ref_token_logps"].tolist() == [
        [0, 0, -1, -2, -3],
        [0, -5, 0, 0, 0],
        [0, 0, -4, 0, 0],
        [0, -6, -7, 0, 0],
    ]
    torch.testing.assert_close(batch["process_rewards"], torch.tensor([[0.1, 0.2], [0.4, 0.0], [0.3, 0.0], [0.5, 0.6]]))
    assert batch["step_mask"].tolist() == [[True, True], [True, False], [True, False], [True, True]]


def test_dataset_columns(pairs):
    policy = load_policy("tiny")
    steps = StepTokenizer(policy.tokenizer, is_encoder_decoder=True)
    row = build_dataset(pairs[:1], steps)[0]
    assert row["row"] == 0
    assert len(row["chosen_ids"]) == len(row["chosen_step_ids"])
    assert max(row["rejected_step_ids"]) == len(pairs[0].rejected) - 1
    judge = LLMRewardModel.from_pretrained("tiny")
    row = build_dataset(pairs[:1], steps, judge=judge)[0]
    assert (row["chosen_process_rewards"], row["rejected_process_rewards"]) == judge.score_pairs(pairs[:1])[0]


def test_nothing_is_judged_before_all_pairs_are_short_enough(pairs):
    steps = StepTokenizer(load_policy("tiny").tokenizer, is_encoder_decoder=True)
    judge = LLMRewardModel.from_pretrained("tiny")
    lengths = [row["length"] for row in build_dataset(pairs, steps)]
    with pytest.raises(DataError, match="tokens"):
        build_dataset(pairs, steps, max(lengths) - 1, judge)
    assert not judge._cache


def test_case_13_a_loss_that_is_not_finite_stops_and_names_the_examples(pairs, tmp_path):
    policy = load_policy("tiny")
    trainer = make_trainer(policy, pairs[:2], tmp_path)
    with torch.no_grad():
        policy.model.shared.weight.fill_(float("nan"))
    with pytest.raises(
        RunError, match=f"the loss became nan at global_step 1 .examples .*'{pairs[0].id}'.*nothing was"
    ):
        trainer.train()


@pytest.mark.parametrize("reward_model", [False, True], ids=["policy", "trained reward model"])
def test_case_13_a_gradient_that_is_not_finite_changes_no_weight(pairs, tmp_path, reward_model):
    """The loss is fine, its gradient is not, in the second optimiser step of two batches each."""
    policy, judge = load_policy("tiny"), LLMRewardModel.from_pretrained("tiny")
    options = {"loss": "stepwise", "reward_model": judge, "train_reward_model": True} if reward_model else {}
    trainer = make_trainer(policy, pairs[:8], tmp_path, gradient_accumulation_steps=2, **options)
    broken = judge.model.shared.weight if reward_model else policy.model.shared.weight
    broken.register_hook(lambda gradient: gradient * float("inf") if trainer.state.global_step == 1 else gradient)
    kept = []

    class Keep(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            kept.append(copy.deepcopy([*policy.model.parameters(), *judge.parameters()]))

    trainer.add_callback(Keep())
    what = "the norm of the reward model's gradient" if reward_model else "the gradient's norm"
    with pytest.raises(RunError, match=f"{what} became (nan|inf) at global_step 2 .examples ") as error:
        trainer.train()
    named = set(re.findall(r"'(\S*)'", str(error.value)))
    assert len(named) == 4
    assert named < {pair.id for pair in pairs[:8]}
    (after_first,) = kept
    now = [*policy.model.parameters(), *judge.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(now, after_first, strict=True))


def test_case_13_a_held_out_loss_that_is_not_finite_names_its_examples(pairs, tmp_path):
    policy = load_policy("tiny")
    trainer = make_trainer(policy, pairs[:2], tmp_path, eval_pairs=pairs[2:3])
    with torch.no_grad():
        policy.model.shared.weight.fill_(float("nan"))
    with pytest.raises(RunError, match=f"the held-out loss became nan after global_step 0 .example '{pairs[2].id}'"):
        trainer.evaluate()


def test_case_13_weights_that_are_not_finite_are_not_saved(pairs, tmp_path):
    policy = load_policy("tiny")
    trainer = make_trainer(policy, pairs[:2], tmp_path)
    with torch.no_grad():
        policy.model.shared.weight[0, 0] = float("inf")
    with pytest.raises(RunError, match=r"weights are not finite after global_step 0 \(shared\.weight\)"):
        trainer.save_model(str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()


def test_a_checkpoint_of_another_policy_is_refused(pairs, tmp_path):
    trainer = make_trainer(load_policy("tiny"), pairs[:2], tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    trainer.train()
    weights = tmp_path / "checkpoint-1" / "model.safetensors"
    values = load_file(weights)
    del values["decoder.final_layer_norm.weight"]
    save_file(values, weights)
    with pytest.raises(RunError, match=r"not one of this policy: decoder\.final_layer_norm\.weight don't match"):
        make_trainer(load_policy("tiny"), pairs[:2], tmp_path, max_steps=2).resume(tmp_path / "checkpoint-1")


def test_bad_requests(pairs, tmp_path):
    policy = load_policy("tiny")
    with pytest.raises(ConfigError, match="needs a reward model"):
        make_trainer(policy, pairs, tmp_path, loss="stepwise")
    with pytest.raises(ConfigError, match="loss must be one of dpo, stepwise, not 'both'"):
        make_trainer(policy, pairs, tmp_path, loss="both")
    with pytest.raises(ConfigError, match="train_reward_model needs loss 'stepwise'"):
        make_trainer(policy, pairs, tmp_path, train_reward_model=True)
    with pytest.raises(DataError, match="no training examples"):
        make_trainer(policy, [], tmp_path)
    with pytest.raises(DataError, match="more than the maximum length of 20"):
        make_trainer(policy, pairs, tmp_path, max_length=20)


@pytest.mark.parametrize("options", [{"train_reward_model": True}, {"frozen_scores": "as_needed"}, {}])
def test_a_pair_that_the_judge_cant_read_is_found_before_training(pairs, tmp_path, causal_folder, options):
    judge = LLMRewardModel.from_pretrained(str(causal_folder), head="likelihood")
    long = PreferencePair(prompt="p", chosen=(Step("1"),), rejected=(Step("2" * 5000),), id="seven")
    for train_pairs, eval_pairs in (([*pairs[:2], long], None), (pairs[:2], [long])):
        with pytest.raises(DataError, match=r"^example 'seven', rejected: .* only 4096"):
            make_trainer(
                load_policy("tiny"), train_pairs, tmp_path, eval_pairs=eval_pairs, reward_model=judge,
                loss="stepwise", **options,
            )  # fmt: skip


def test_hostile_and_odd_texts_train(tmp_path):
    texts = ["<img src=x onerror=alert(1)>", "${alert(1)} {{x}} `", "emoji 🙂 and עברית", "a\nb\u2028c", "\x01"]
    pairs = [
        PreferencePair(prompt=text, chosen=(Step(text),), rejected=(Step(text), Step("more")), id=str(i))
        for i, text in enumerate(texts)
    ]
    trainer = make_trainer(load_policy("tiny"), pairs, tmp_path, max_steps=3)
    trainer.train()
    assert all(math.isfinite(loss) for loss in losses(trainer))


def test_the_real_examples_of_each_process():
    """Seven examples, batches of two in three processes, ranks filled in order."""
    assert real_examples(7, 2, 3) == [2, 2, 2]
    assert real_examples(1, 2, 3) == [1, 0, 0]
    assert real_examples(3, 2, 3) == [2, 1, 0]


@pytest.mark.parametrize(("drop_last", "expected"), [(False, [5, 3, 1, 5, 3, 1]), (True, [5, 3, 5, 3, 5, 3])])
def test_the_examples_that_are_left_begin_anew_with_each_epoch(pairs, tmp_path, drop_last, expected):
    """Five examples in batches of two: an epoch has three batches, or two where the last, short one is dropped."""
    trainer = make_trainer(
        load_policy("tiny"), pairs[:5], tmp_path, dataloader_drop_last=drop_last, frozen_scores="as_needed"
    )
    left = []
    for global_step in range(6):
        trainer.state.global_step = global_step
        left.append(trainer._left_for_step(2))
    assert left == expected


def test_cutting_a_batch_to_its_first_pairs():
    """Three pairs, six rows: chosen 0, 1, 2, rejected 3, 4, 5; of the first two pairs, rows 0, 1, 3, 4 stay."""
    batch = {"row": torch.tensor([7, 8, 9]), "input_ids": torch.arange(6)[:, None] * torch.ones(1, 2), "flag": True}
    cut = keep_first(batch, 3, 2)
    assert cut["row"].tolist() == [7, 8]
    assert cut["input_ids"][:, 0].tolist() == [0, 1, 3, 4]
    assert cut["flag"] is True
