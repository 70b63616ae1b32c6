import pytest

from stepwise_dpo.errors import ModelError
from stepwise_dpo.ui.draft_check import check_draft, count_tokens, is_on_disk
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
    counted = count_tokens(Policies().token_counts, is_on_disk, {"model": "tiny", "draft": DRAFT})
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
        ({"model": "/etc/passwd", "draft": DRAFT}, "tokens are counted for"),
        ({"model": ["tiny"], "draft": DRAFT}, "tokens are counted for"),
        ({"model": "tiny", "draft": DRAFT | {"chosen": [{"text": 7}]}}, "no text"),
        ({"model": "tiny", "draft": DRAFT | {"prompt": "x" * 200_001}}, "more than 200,000 characters"),
        ({"model": "google/flan-t5-small", "draft": DRAFT}, "not on this machine"),
        ({"model": "tiny", "draft": DRAFT}, "no token counts: tiny is broken"),
    ],
)
def test_where_tokens_can_not_be_counted_it_says_why(asked, words):
    found = count_tokens(failing, lambda model: model == "tiny", asked)
    assert words in found["problem"]


def test_bundled_models_are_on_disk():
    assert is_on_disk("policy")
    assert is_on_disk("tiny")
