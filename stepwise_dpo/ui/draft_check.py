"""What the server knows about a draft while somebody types: faults and remarks with their place, and token counts.

Everything here takes what a browser sent, and returns plain data for the editor (assets/editor.js).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepwise_dpo.errors import StepwiseDPOError
from stepwise_dpo.learning.names import BUNDLED, HUB_DEFAULT, TINY
from stepwise_dpo.preferences.checks import count_faults, label_faults, text_faults
from stepwise_dpo.preferences.faults import MAX_STEPS
from stepwise_dpo.preferences.pairs import PreferencePair, Step, remarks
from stepwise_dpo.ui.judges import check_model_name
from stepwise_dpo.ui.library import SIDES

TOKEN_MODELS = (*BUNDLED, HUB_DEFAULT, TINY)
"""Whose tokens the editor counts, beside those of a model that somebody has named in Train, see `token_models`."""

MAX_COUNTED = 200_000
"""The most characters of one example whose tokens are counted."""

Note = dict[str, Any]


def check_draft(draft: object) -> list[Note]:
    """Check a draft by the rules that loading and saving have.

    Returns:
        {"side": "chosen", "rejected", "prompt" or "" for both, "step": index or None, "words", "error": bool} each;
        errors keep a draft from being saved. Remarks that compare steps are there only once no error is.
    """
    if not isinstance(draft, Mapping):
        return [_note("", None, "the editor sent no example", True)]
    found = [_note("prompt", None, words, True) for words in text_faults(draft.get("prompt"), "the prompt")]
    for side in SIDES:
        steps = draft.get(side)
        if not isinstance(steps, list):
            found.append(_note(side, None, f"{side} has no steps", True))
            continue
        found += [_note(side, None, words, True) for words in count_faults(steps, side)]
        for index, step in enumerate(steps[:MAX_STEPS]):
            fields = step if isinstance(step, Mapping) else {}
            faults = text_faults(fields.get("text"), "this step") + label_faults(fields.get("label"), "its label")
            found += [_note(side, index, words, True) for words in faults]
    if found:
        return found
    chosen, rejected = ([Step(step["text"], step.get("label")) for step in draft[side]] for side in SIDES)
    pair = PreferencePair(draft["prompt"], chosen, rejected)
    return [_note(remark.side, remark.step, remark.words, False) for remark in remarks(pair)]


def token_models(trained: object, public: bool) -> list[str]:
    """List the models that the editor offers: on a page of one's own also the one that the Train form names.

    Args:
        trained: what that form holds as the model to train.
        public: whether strangers use the page, who choose from the list only.
    """
    if public or not isinstance(trained, str) or not trained.strip() or trained.strip() in TOKEN_MODELS:
        return list(TOKEN_MODELS)
    return [*TOKEN_MODELS, trained.strip()]


def count_tokens(
    count: Callable[[str, Sequence[str]], list[int]], on_disk: Callable[[str], bool], asked: object, public: bool
) -> dict[str, Any]:
    """Count the tokens of a draft's prompt and steps.

    Args:
        count: counts the tokens of texts for a model, see `Policies.token_counts`.
        on_disk: whether a model's files are here, so that counting downloads nothing.
        asked: {"model", "draft"} as a browser sent it.
        public: whether strangers use the page, who get a model of `TOKEN_MODELS` only.

    Returns:
        {"prompt": tokens, "chosen": [per step], "rejected": [per step]}, or {"problem": why there are none}.
    """
    if not isinstance(asked, Mapping) or not isinstance(draft := asked.get("draft"), Mapping):
        return {"problem": "the editor sent no example"}
    try:
        model = check_model_name(asked.get("model"), TOKEN_MODELS, public)
    except StepwiseDPOError as problem:
        return {"problem": f"no token counts: {problem}"}
    texts: list[str] = [draft.get("prompt", "")]
    counts = []
    for side in SIDES:
        steps = draft.get(side)
        steps = steps[:MAX_STEPS] if isinstance(steps, list) else []
        counts.append(len(steps))
        texts += [step.get("text", "") if isinstance(step, Mapping) else "" for step in steps]
    if not all(isinstance(text, str) for text in texts):
        return {"problem": "the editor sent no text"}
    if sum(map(len, texts)) > MAX_COUNTED:
        return {"problem": f"no token counts: the example has more than {MAX_COUNTED:,} characters"}
    if not on_disk(model):
        return {
            "problem": f"{model} is not on this machine, and counting shall not download it; "
            "once it has been used in Train or Rewards, its tokens are counted"
        }
    try:
        tokens = count(model, [text.encode("utf-8", "replace").decode() for text in texts])
    except StepwiseDPOError as problem:
        return {"problem": f"no token counts: {problem}"}
    middle = 1 + counts[0]
    return {"prompt": tokens[0], "chosen": tokens[1:middle], "rejected": tokens[middle:]}


def is_on_disk(model: str) -> bool:
    """Whether a model comes with the project, is a folder here, or has been downloaded."""
    if model in (*BUNDLED, TINY) or _is_folder(model):
        return True
    from huggingface_hub import try_to_load_from_cache  # imports slowly
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(model, file) for file in ("config.json", "model.safetensors")]
    except HFValidationError:  # neither a folder nor a name that the Hub could have
        return False
    return all(isinstance(file, str) for file in found)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):  # no such home, or no path at all
        return False


def _note(side: str, step: int | None, words: str, error: bool) -> Note:
    return {"side": side, "step": step, "words": words, "error": error}
