"""What the page says about each formula and metric when somebody asks "what is this"."""

from typing import NamedTuple


class Entry(NamedTuple):
    """One explanation: plain text, a formula in plain text ("" for none), and where it comes from ("" for nobody)."""

    title: str
    words: str
    formula: str = ""
    source: str = ""


GLOSSARY: dict[str, Entry] = {
    "dpo": Entry(
        "DPO",
        "Raises the chosen answer's likelihood over the rejected one's, both measured against a frozen copy of the "
        "policy. Before the first step policy and copy are equal, so the loss starts at ln 2 = 0.693.",
        "loss = −log σ( β · (lr(chosen) − lr(rejected)) ),  lr(y) = log π(y|x) − log π_ref(y|x)",
        "Rafailov et al. 2023, arXiv 2305.18290",
    ),
    "imitation": Entry(
        "DPO + imitation",
        "DPO with a second term that raises the chosen answer's own likelihood, so that it can't fall together with "
        "the rejected one's.",
        "loss = DPO + mean over tokens of −log π(chosen|x)",
        "Pang et al. 2024, arXiv 2404.19733",
    ),
    "stepwise": Entry(
        "Step-wise loss",
        "A process reward model scores every step; the difference of the two sums decides how strongly, and in which "
        "direction, the pair is trained. No reference model holds the policy back. The loss can't be compared with "
        "DPO's.",
        "loss = −log σ( p · (ll(chosen) − ll(rejected)) ),  p = Σ r(chosen step) − Σ r(rejected step)",
        "this project; the closest published form is TGDPO, arXiv 2506.14574",
    ),
    "process_reward": Entry(
        "Process reward",
        "What a reward model thinks of one step, given the problem and the steps before it: centred around 0, as its "
        "probability p that the step is right, or as log-odds, in nats. All three say the same on another scale.",
        "centred: 2p − 1,  log-odds: ln(p / (1 − p))",
        "Lightman et al. 2023, arXiv 2305.20050",
    ),
    "implicit_reward": Entry(
        "Policy log-ratio",
        "How much likelier a step has become by training: the trained policy's log-probability of the step minus the "
        "base policy's, summed over its tokens, in nats. Times beta it is DPO's implicit reward.",
        "β · Σ over the step's tokens of log π / π_ref",
        "Yuan et al. 2024, arXiv 2412.01981",
    ),
    "preference": Entry(
        "Preference",
        "Aggregated process rewards of the chosen side minus those of the rejected side. Its size acts like DPO's "
        "beta for this pair; where it is negative, the step-wise loss trains towards the rejected answer.",
        "p = Σ r(chosen step) − Σ r(rejected step)",
    ),
    "negative_preference": Entry(
        "Negative preference",
        "The reward model likes the rejected side more. The step-wise loss then trains the wrong way, unless such "
        "pairs are skipped or clamped.",
        "dL/dd = −p · σ(−p·d): its sign is that of p",
    ),
    "log_likelihood_gap": Entry(
        "Log-likelihood gap",
        "How much likelier, per token, the policy finds the chosen answer than the rejected one.",
        "d = ll(chosen) − ll(rejected), in nats per token",
    ),
    "loss": Entry(
        "Loss",
        "What training minimises, averaged over the batch of each optimiser step. The thick line is an exponential "
        "average; diamonds are the held-out examples.",
    ),
    "rewards": Entry(
        "Implicit rewards",
        "Beta times the log-ratio of policy to reference, per answer. Both may fall while the margin rises: for nearly "
        "identical answers, as step pairs are, that is common. An imitation term is the usual remedy.",
        "rewards/margins = rewards/chosen − rewards/rejected",
        "likelihood displacement: Razin et al. 2024, arXiv 2410.08847",
    ),
    "accuracy": Entry(
        "Reward accuracy",
        "The share of pairs for which the policy, measured against its reference, prefers the chosen answer more than "
        "before. The curve begins at 0%: at the first step both are the same model.",
        "share of pairs with rewards/margins > 0",
    ),
    "preference_accuracy": Entry(
        "Preference accuracy",
        "The share of pairs whose chosen answer is likelier per token than the rejected one. (The reward accuracy in "
        "Train measures both against the policy before training instead.)",
    ),
    "preferred": Entry(
        "Preferred answer",
        "The one that the second model finds likelier per token. An arrow leads to it from the first model's, where "
        "the two differ.",
    ),
    "mean_margin": Entry(
        "Mean margin",
        "Log-likelihood of chosen minus that of rejected, per token, averaged over pairs.",
    ),
    "logps": Entry(
        "Log-probabilities",
        "The policy's log-probability of the whole answer, in nats, summed over tokens: the closer to 0, the likelier.",
    ),
    "process": Entry(
        "Process rewards",
        "The reward model's scores of the steps, aggregated per answer, and their difference, the preference.",
    ),
    "negative": Entry(
        "Negative preferences",
        "The share of pairs in the batch whose rejected side scores higher. There the step-wise loss trains the wrong "
        "way.",
    ),
    "gradient": Entry(
        "Gradient norm",
        "The length of the gradient before it is clipped. A sudden rise announces trouble; a lower learning rate or "
        "clipping helps.",
    ),
    "entropy": Entry(
        "Entropy",
        "How undecided the policy is about the next token, averaged over the answers' tokens. One that falls to 0 "
        "has become certain of everything, also of what is wrong.",
        "−Σ over the vocabulary of π · log π, in nats",
    ),
    "run_loss": Entry(
        "Loss of a run",
        "That of the newest optimiser step, and its course so far as an exponential average. Losses of different kinds "
        "are on different scales.",
    ),
    "compared_on": Entry(
        "Compared on",
        "How many held-out examples the policy is measured on before and after training: what it prefers, and what it "
        "answers. Their set is chosen under More options; with none of them, the comparison is on the training "
        "examples.",
    ),
    "epochs": Entry("Epochs", "How many times each example is trained on. 0.5 stops halfway through them."),
    "batch": Entry(
        "Batch",
        "How many pairs each optimiser step averages its gradient over. A larger batch makes steadier but fewer steps, "
        "and takes more memory.",
        "optimiser steps = epochs × examples / batch, rounded up",
    ),
    "seed": Entry(
        "Seed",
        "Where random numbers begin: those for the order of the examples, and all others. The same seed with the same "
        "settings repeats a run on the same machine; another one shows how much of a result is chance.",
    ),
    "max_length": Entry(
        "Longest example",
        "The most tokens of a prompt with one of its answers. A run refuses longer ones, since cut ones would train on "
        "half an answer.",
    ),
    "learning_rate": Entry(
        "Learning rate",
        "The size of AdamW's first steps; it falls to 0 by the end of the run unless the schedule says otherwise. Too "
        "small changes nothing, too large makes the policy forget what it could do: then the solve rate falls.",
    ),
    "rate": Entry("Learning rate", "AdamW's step size at each optimiser step, as the schedule sets it."),
    "solve_rate": Entry(
        "Solve rate",
        "The share of held-out problems whose generated answer the checker finds right. The interval says where "
        "it may lie on other problems of the kind, at 95%.",
    ),
    "run_result": Entry(
        "Result of a run",
        "Before training → after it: the solve rate, which is the share of held-out problems whose generated answer "
        "the checker finds right. Where no checker knows the problems, the preference accuracy: the share of pairs "
        "whose chosen answer is likelier per token. The change is in percentage points; where its interval holds 0, it "
        "may be chance.",
    ),
    "shown_quantity": Entry(
        "What is shown",
        "The first three are the judge's score of a step, on three scales: as the process reward 2p − 1; as p, its "
        "probability that the step is right; and as log-odds, in nats, which tell apart what lies close to 0 or 1. The "
        "fourth is the policy's: the log-probability of the step, summed over its tokens, or its log-ratio.",
        "2p − 1,  p,  ln(p / (1 − p)),  Σ over the step's tokens of log π",
        "process rewards: Lightman et al. 2023, arXiv 2305.20050",
    ),
    "shown_moment": Entry(
        "Before and after training",
        "Before: the models that the run started from. After: those that it left. A run of DPO, and of the step-wise "
        "loss unless that trains its reward model too, changes the policy only. The policy's difference is its "
        "log-ratio per step; times beta it is DPO's implicit reward.",
        "after − before = Σ over the step's tokens of log π / π_ref",
        "Yuan et al. 2024, arXiv 2412.01981",
    ),
    "loss_type": Entry(
        "Kind of DPO",
        "Which function of the margin m is minimised, in TRL's words. sigmoid: DPO itself. hinge stops at m = 1, ipo "
        "pulls the margin to a fixed value, robust reckons with labels that are wrong at times, sigmoid_norm divides "
        "each log-ratio by its answer's tokens, sft only imitates the chosen answer. Those that read “label_smoothing” "
        "of the other settings are exo_pair, robust, aot and aot_unpaired; exo_pair needs it.",
        "sigmoid: −log σ(m),  hinge: max(0, 1 − m),  m = β · (lr(chosen) − lr(rejected))",
        "TRL's DPOTrainer; hinge: arXiv 2305.10425, ipo: arXiv 2310.12036, robust: arXiv 2403.00409",
    ),
    "likelihood": Entry(
        "Log-likelihood of an answer",
        "The mean over its tokens, so that a longer answer isn't less likely by its length alone; or their sum.",
        "ll(y) = 1/|y| · Σ log π(token | before),  or without 1/|y|; in nats",
    ),
    "nonpositive": Entry(
        "A preference of zero or less",
        "There the reward model likes the rejected answer as much or more, and the loss as it is trains towards it. "
        "“Skip” takes such a pair out: no loss, no gradient. “Clamp” raises its preference to 0: the loss is ln 2, and "
        "the policy gets no gradient.",
        "dL/dd = −p · σ(−p·d): its sign is that of p",
    ),
    "reward_value": Entry(
        "Scale of step rewards",
        "Centred rewards and log-odds are 0 where the judge is undecided, so steps that are likely wrong take away. "
        "Probabilities are all positive, and a sum of them favours more steps. The preference acts as each pair's "
        "beta, so the scale also sets how hard the loss trains.",
        "2p − 1,  p,  ln(p / (1 − p))",
    ),
    "anchor": Entry(
        "Anchor to the reference",
        "Counts how much likelier each answer has become instead of how likely it is, as DPO does: the gap starts at "
        "0, and the loss at ln 2.",
        "d = lr(chosen) − lr(rejected),  lr(y) = ll(y) − ll_ref(y)",
    ),
    "other_settings": Entry(
        "Other settings",
        "Everything of a run's configuration that has no field here, one on each line. max_grad_norm: gradients that "
        "are longer are shortened to it, 1 unless set. label_smoothing: the share of labels that are taken to be "
        "wrong, for the kinds of DPO that read it. Others are warmup_steps, weight_decay, lr_schedule, eval_steps, "
        "save_steps, max_new_tokens. “train --help” explains them all.",
    ),
    "beta": Entry(
        "Beta",
        "How strongly DPO holds the policy to its reference: a large beta keeps it close, a small one lets it drift.",
    ),
    "first_error": Entry(
        "First error",
        "The first step that is labelled wrong. ProcessBench asks a reward model to find exactly this step.",
        "",
        "Zheng et al. 2024, arXiv 2412.06559",
    ),
    "aggregation": Entry(
        "Aggregation",
        "How the rewards of a solution's steps become one number. A sum of positive rewards favours more steps; mean, "
        "min and last don't. A product needs probabilities. “Up to the first error” sums until the first step that the "
        "judge finds wrong: what only carries that error on doesn't count.",
        "",
        "product: arXiv 2305.20050, min: arXiv 2312.08935",
    ),
    "data_steps": Entry(
        "Steps per solution",
        "How many steps the chosen and the rejected answers have. If one side is always longer, a loss that sums over "
        "steps or tokens can win by length alone.",
    ),
    "data_gap": Entry(
        "Length gap",
        "Characters of the chosen answer minus those of the rejected one. A distribution that leans to one side "
        "teaches length beside correctness; normalising by length is the usual remedy.",
        "",
        "Park et al. 2024, arXiv 2403.19159",
    ),
    "data_first_error": Entry(
        "Where the first error sits",
        "The first step of each rejected answer that is labelled wrong. A judge that was measured on early errors only "
        "may be blind to late ones.",
        "",
        "ProcessBench: Zheng et al. 2024, arXiv 2412.06559",
    ),
    "data_repeats": Entry(
        "Repeats and overlaps",
        "Examples whose prompt an earlier example has, or another set has, whatever its spacing and capitals. Training "
        "on a prompt that is also in the held-out set makes the comparison too good.",
    ),
    "divergence": Entry(
        "Where the sides diverge",
        "The first step whose text differs. The steps before it are common to both answers, so only what follows the "
        "dashed line teaches a preference.",
    ),
    "tokens": Entry(
        "Tokens per step",
        "How many pieces the chosen model's tokenizer cuts a step into, without special tokens. Log-likelihoods are "
        "sums over tokens; an example that is longer than the longest one that a run allows is refused, never cut.",
    ),
    "reward_heatmap": Entry(
        "Step heatmap",
        "A row is an example, a cell a step: chosen at the left, rejected at the right, on one colour scale. Hover "
        "for the step's text; a click opens the example; a drag zooms in, and cells that are large enough show their "
        "numbers.",
    ),
    "process_bench": Entry(
        "First errors found",
        "What a judge takes for the first error is its first step below the neutral score (p = 0.5). acc1: wrong "
        "solutions in which that is exactly the labelled step; acc2: right ones in which no step is doubted. “evaluate "
        "reward” on the command line takes a threshold tuned on other data instead, and so gets other figures.",
        "F1 = 2 · acc1 · acc2 / (acc1 + acc2), in percent",
        "ProcessBench, Zheng et al. 2024, arXiv 2412.06559",
    ),
    "auroc": Entry(
        "AUROC",
        "The chance that a right step scores higher than a wrong one, over labelled steps up to each first error. 0.5 "
        "is guessing, 1 is perfect; it needs no threshold.",
    ),
    "margin": Entry(
        "Margin",
        "How much likelier, per token, a model finds the chosen answer than the rejected one. Above 0 it prefers the "
        "chosen one.",
        "margin = ll(chosen) − ll(rejected), in nats per token",
    ),
    "margin_change": Entry(
        "Change of the margin",
        "By how much the second model's margin is above the first one's, in nats per token. Above 0 the example has "
        "moved towards its chosen answer.",
        "change = margin of the second − margin of the first",
    ),
    "answer": Entry(
        "Answer",
        "Whether a model's own greedy answer to the problem is right, as the checker says. An arrow leads from the "
        "first model to the second, where they differ; a dash means that nobody asked, or that no checker knows the "
        "problem.",
    ),
    "margins": Entry(
        "Margins",
        "How many examples have which margin, for both models. Right of the line at 0 a model prefers the chosen "
        "answer.",
        "margin = ll(chosen) − ll(rejected), in nats per token",
    ),
    "margin_moves": Entry(
        "Each example's margin",
        "Every point is an example: across, its margin for the first model; up, for the second. Above the dotted line "
        "the margin has grown; above 0 and left of 0 the preference has flipped to the chosen answer.",
    ),
    "logps_chosen": Entry(
        "Log-probability of chosen",
        "The mean over examples of the whole chosen answer's log-probability, summed over its tokens. Closer to 0 is "
        "likelier. It may fall while the margin grows: then the rejected answer's falls faster.",
        "log π(chosen|x), in nats",
        "likelihood displacement: Razin et al. 2024, arXiv 2410.08847",
    ),
    "logps_rejected": Entry(
        "Log-probability of rejected",
        "The mean over examples of the whole rejected answer's log-probability, summed over its tokens.",
        "log π(rejected|x), in nats",
    ),
    "interval": Entry(
        "95% interval",
        "Where a figure may lie on other examples of the same kind. Of a share it is Wilson's, of a mean the bootstrap "
        "over examples. That of a change draws examples with both models' values together, so it can be narrow though "
        "the two others overlap.",
        "",
        "Wilson 1927, JASA 22; Efron 1979, Annals of Statistics 7",
    ),
    "step_logp": Entry(
        "Log-probability of a step",
        "How likely a model finds a step after the problem and the steps before it, summed over the step's tokens. 0 "
        "is certain; long steps have lower values.",
        "Σ over the step's tokens of log π(token | before), in nats",
    ),
    "learn_loss": Entry(
        "Loss by gap",
        "Both losses for one pair whose policy prefers the chosen answer by a gap of d. An arrow shows which way "
        "training moves the gap: always towards a lower loss.",
        "−ln σ(β·d) for DPO,  −ln σ(p·d) for the step-wise loss",
    ),
    "learn_pull": Entry(
        "Pull",
        "The gradient with its sign turned: how hard, and which way, training moves the gap. It has the sign of the "
        "factor, β or p, and fades where the pair is learnt.",
        "−dL/dd = β · σ(−β·d) for DPO,  p · σ(−p·d) for the step-wise loss",
    ),
    "learn_training": Entry(
        "Where training takes the gap",
        "Plain gradient descent on the gap itself. A real policy has many weights and many pairs; the direction is the "
        "same.",
        "d ← d + 0.1 · (−dL/dd)",
    ),
}
"""Explanations by key; a chart's key is its id."""
