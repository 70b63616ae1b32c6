"""What was used last stays, up to a total size."""

from stepwise_dpo.learning.bounded_cache import BoundedCache
from stepwise_dpo.learning.rewards import LLMRewardModel


def test_what_was_used_last_stays_up_to_a_total_size():
    cache = BoundedCache(6, lambda key, value: len(value))
    for key, value in (("a", "xx"), ("b", "xx"), ("c", "xx")):
        cache.put(key, value)
    assert cache.get("a") == "xx"
    cache.put("d", "xxx")  # three more make room for it: b, and then c
    assert [key in cache for key in "abcd"] == [True, False, False, True]
    cache.put("a", "x")  # a replaced value counts once
    cache.put("e", "xx")
    assert [key in cache for key in "ade"] == [True, True, True]
    cache.put("f", "x" * 7)  # larger than everything: it isn't worth the rest
    assert [key in cache for key in "adef"] == [True, True, True, False]
    cache.clear()
    assert (len(cache), cache.get("a")) == (0, None)
    cache.put("g", "x" * 6)
    assert cache.get("g")


def test_a_judge_remembers_no_more_tokens_than_it_is_told():
    """Every key stroke on the page is judged; but what one call asks is scored once, however much it is."""
    judge = LLMRewardModel.from_pretrained("tiny", cached_tokens=1_000)
    rows = []
    judge.model.get_output_embeddings().register_forward_pre_hook(lambda module, args: rows.append(args[0].size(0)))
    many = [("p", [f"step {n}"]) for n in range(50)]
    first = judge.score_solutions(many * 2)
    assert sum(rows) == 50
    assert first[:50] == first[50:] == LLMRewardModel.from_pretrained("tiny").score_solutions(many)
    assert 0 < len(judge._cache) < 15  # a question has some hundred tokens
    for n in range(20):
        judge.score_solutions([("p", ["typed " + "x" * n])])
    assert len(judge._cache) < 15
    seen = sum(rows)
    judge.score_solutions([("p", ["typed " + "x" * 19])])
    assert sum(rows) == seen
    unbounded = LLMRewardModel.from_pretrained("tiny")
    unbounded.score_solutions(many)
    assert len(unbounded._cache) == 50  # as training needs it
