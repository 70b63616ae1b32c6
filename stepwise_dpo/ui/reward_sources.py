"""Which models take part in a view of the Rewards tab, and what they say about one example."""

from collections.abc import Sequence
from pathlib import PurePath

from stepwise_dpo.errors import StepwiseDPOError
from stepwise_dpo.learning.names import POLICY
from stepwise_dpo.preferences.pairs import PreferencePair
from stepwise_dpo.runs.own_runs import OwnRuns
from stepwise_dpo.ui.judges import JUDGES, POLICIES, SCALES, check_model_name
from stepwise_dpo.ui.reward_rows import Facts
from stepwise_dpo.ui.reward_views import Cast, Look, Sides, numbers, plan, view_numbers
from stepwise_dpo.ui.runs_view import RunView, look
from stepwise_dpo.ui.step_scores import PairScores, Source, StepScores
from stepwise_dpo.ui.waterfall import aggregated

_HEAD_OPTIONS = ("head", "right_word", "wrong_word", "template", "tag", "token")


def trained_runs(own: OwnRuns) -> list[RunView]:
    """Runs that ended with a trained policy, the newest first."""
    return [view for view in look(own) if view.status.state in ("finished", "stopped") and view.kept]


def chosen_run(runs: Sequence[RunView], wanted: object, otherwise: object) -> RunView | None:
    """Find the run that a view is about: the chosen one, else the session's, else the newest; None without any."""
    by_id = {view.run.id: view for view in runs}
    for run_id in (wanted, otherwise):
        if isinstance(run_id, str) and run_id in by_id:
            return by_id[run_id]
    return runs[0] if runs else None


def cast_of(model: object, run: RunView | None, when: str, public: bool) -> Cast:
    """Decide which models take part.

    Args:
        model: the chosen reward model, as the browser sent it.
        run: what "after" means; None for nothing.
        when: one of `WHENS`.
        public: whether models come from a list.

    Raises:
        ConfigError: a model is not allowed here.
        RunError: the run's configuration can't be read.
    """
    judge = check_model_name(model, JUDGES, public)
    chosen = Source("judge", judge, title_of(judge))
    if run is None:
        return Cast(chosen, None, Source("policy", POLICY, POLICY), None)
    config = run.run.config()
    base = check_model_name(config.model, POLICIES, public)
    folder = run.run.path / "reward_model"
    trained_judge, remark = None, ""
    if config.train_reward_model and config.reward_model is not None and (folder / "config.json").is_file():
        trained_judge = Source("judge", str(folder), f"{title_of(config.reward_model)}, trained by {run.name}")
        if when != "before" and config.reward_model != judge:
            own = check_model_name(config.reward_model, JUDGES, public)
            remark = f"{run.name} trained the reward model “{title_of(own)}”, so that is the judge before and after it."
            chosen = Source("judge", own, title_of(own))
        if when != "before" and any(getattr(config, f"reward_{name}") is not None for name in _HEAD_OPTIONS):
            remark += " That run set options of the head; before it, the model scores as its own folder says."
    return Cast(
        chosen,
        trained_judge,
        Source("policy", base, title_of(base)),
        Source("policy", str(run.run.final), f"{title_of(base)} after {run.name}"),
        run.name,
        config.beta if config.loss == "dpo" else None,
        remark.strip(),
    )


def title_of(name: str) -> str:
    """Call a model for the page: of a local folder only its own name, never where it lies."""
    return PurePath(name).name if name.startswith((".", "/", "~")) or "\\" in name else name


def facts_of(scores: StepScores, pair: PreferencePair, chosen: Look, cast: Cast) -> tuple[Facts | None, list[str]]:
    """Ask the models about one example.

    Returns:
        the facts, None where the view has nothing to show; and what went wrong with parts that the rows don't need.

    Raises:
        StepwiseDPOError: the model behind the rows can't be loaded, or can't read the example.
    """
    planned = plan(chosen, cast)
    if planned.shown is None:
        return None, []
    shown = scores.of(planned.shown, pair)
    minus = scores.of(planned.minus, pair) if planned.minus else None
    sides = view_numbers(chosen, shown, minus)
    problems: list[str] = []

    def asked(source: Source | None) -> PairScores | None:
        """What a source says that isn't behind the rows; its fault shall not take the rows away."""
        if source is None or (source == cast.judge and not scores.judges.ready(source.name)):
            return None
        try:
            return scores.of(source, pair)
        except StepwiseDPOError as problem:
            problems.append(str(problem))
            return None

    before_after = (cast.policy, cast.trained)
    policies = {"before": before_after[:1], "after": before_after[1:], "difference": before_after}[chosen.when]
    gaps = [answer.gap for source in policies if (answer := asked(source)) is not None and answer.gap is not None]
    if len(gaps) < len(policies):
        gaps = []
    judges = {"before": (cast.judge,), "after": (cast.trained_judge or cast.judge,)}.get(
        chosen.when, (cast.judge, cast.trained_judge) if cast.trained_judge else (cast.judge,)
    )
    scale = ("probability" if chosen.aggregation == "product" else "centered") if chosen.of_policy else chosen.quantity
    neutral = SCALES[scale].centre
    judged: list[Sides] = [numbers(answer, scale) for source in judges if (answer := asked(source)) is not None]
    preferences = [
        aggregated(c, chosen.aggregation, neutral) - aggregated(r, chosen.aggregation, neutral) for c, r in judged
    ]
    compared = [sides]
    if chosen.when != "difference" and chosen.scale.reach is None:
        # Before and after share their colours, so that switching shows what moved.
        others = before_after if chosen.of_policy else (cast.judge, cast.trained_judge)
        compared += [numbers(answer, chosen.quantity) for source in others if (answer := asked(source)) is not None]
    return Facts(sides, compared, preferences, gaps, judged[-1] if judged else None, neutral), problems


def judged_by(scores: StepScores, source: Source) -> str:
    """Say what a judge is: name, head, rule; asked only of a judge that has scored something."""
    settings = scores.judges.settings(source.name)
    details = {
        "likelihood": "lowest probability of a token in the step"
        if settings.token == "lowest"
        else "mean probability of the step's tokens",
        "verbalizer": f"“{settings.right_word}” against “{settings.wrong_word}” after a question",
        "step_tag": f"“{settings.right_word}” against “{settings.wrong_word}” after a tag behind each step",
        "token_classification": "two labels on each step's last token",
    }[settings.head]
    calibrated = ", calibrated" if (settings.scale, settings.bias) != (1.0, 0.0) else ""
    return f"{source.title}, head {settings.head} ({details}{calibrated})"
