import shutil

import pytest

from stepwise_dpo.errors import ModelError
from stepwise_dpo.learning.names import MODELS_DIR, POLICY
from stepwise_dpo.ui.draft_check import TOKEN_MODELS, check_draft, count_tokens, is_on_disk, token_models
from stepwise_dpo.ui.library import draft_of, new_pair
from stepwise_dpo.ui.policies import Policies

DRAFT = draft_of(new_pair("1"))


def places(draft):
    return [(note["side"], note["step"], note["error"]) for note in check_draft(draft)]


def test_a_good_draft_has_no_notes():
    assert check_draft(DRAFT) == []


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        (None, [("", None, True)]),
        (DRAFT | {"prompt": " "}, [("prompt", None, True)]),
        (DRAFT | {"chosen": []}, [("chosen", None, True)]),
        (DRAFT | {"chosen": 7}, [("chosen", None, True)]),
        (DRAFT | {"rejected": [{"text": "a"}, {"text": ""}]}, [("rejected", 1, True)]),
        (DRAFT | {"rejected": ["a", {"text": "x" * 100_001}]}, [("rejected", 0, True), ("rejected", 1, True)]),
        (DRAFT | {"rejected": [{"text": "a", "label": "no"}]}, [("rejected", 0, True)]),
        (DRAFT | {"rejected": [{"text": "\ud800"}]}, [("rejected", 0, True)]),
        (DRAFT | {"chosen": DRAFT["rejected"]}, [("", None, False), ("chosen", 0, False)]),
    ],
)
def test_notes_stand_at_their_place(draft, expected):
    assert places(draft) == expected


def test_tokens_of_each_step():
    counted = count_tokens(Policies().token_counts, is_on_disk, {"model": "tiny", "draft": DRAFT}, True)
    # The tiny model has a token per byte; × has two bytes.
    assert counted["prompt"] == len(DRAFT["prompt"].encode())
    assert counted["chosen"] == [len(step["text"].encode()) for step in DRAFT["chosen"]]
    assert len(counted["rejected"]) == len(DRAFT["rejected"])


def failing(model, texts):
    raise ModelError(f"{model} is broken")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (None, "no example"),
        ({"model": "tiny"}, "no example"),
        ({"model": "/etc/passwd", "draft": DRAFT}, "public page"),
        ({"model": ["tiny"], "draft": DRAFT}, "name a model"),
        ({"model": "tiny", "draft": DRAFT | {"chosen": [{"text": 7}]}}, "no text"),
        ({"model": "tiny", "draft": DRAFT | {"prompt": "x" * 200_001}}, "more than 200,000 characters"),
        ({"model": "google/flan-t5-small", "draft": DRAFT}, "not on this machine"),
        ({"model": "tiny", "draft": DRAFT}, "no token counts: tiny is broken"),
    ],
)
def test_where_tokens_can_not_be_counted_it_says_why(asked, words):
    found = count_tokens(failing, lambda model: model == "tiny", asked, True)
    assert words in found["problem"]


def test_bundled_models_are_on_disk():
    assert is_on_disk("policy")
    assert is_on_disk("tiny")
    for name in ("/nowhere/at all", "~nobody-here/x", "a\0b", "nobody/has-this"):
        assert not is_on_disk(name)


def test_the_model_that_train_names_is_offered_and_counted_on_a_page_of_ones_own(tmp_path):
    folder = shutil.copytree(MODELS_DIR / POLICY, tmp_path / "my model")
    assert token_models(f" {folder} ", False) == [*TOKEN_MODELS, str(folder)]
    for model, public in ((str(folder), True), ("tiny", False), ("", False), (None, False)):
        assert token_models(model, public) == list(TOKEN_MODELS)
    count = Policies().token_counts
    asked = {"model": str(folder), "draft": DRAFT}
    counted = count_tokens(count, is_on_disk, asked, False)
    assert counted == count_tokens(count, is_on_disk, {"model": POLICY, "draft": DRAFT}, False)
    assert "chosen" in counted
    assert "public page" in count_tokens(count, is_on_disk, asked, True)["problem"]
    (folder / "tokenizer.json").unlink()
    assert "no token counts" in count_tokens(Policies().token_counts, is_on_disk, asked, False)["problem"]
