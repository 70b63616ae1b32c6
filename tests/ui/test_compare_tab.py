"""What the Compare tab writes and measures, with real models of the box."""

import json
import re
import shutil
import time
from dataclasses import replace

import gradio as gr
import pytest

from stepwise_dpo.errors import ConfigError, RunError
from stepwise_dpo.learning.names import MODELS_DIR, POLICY, REWARD, TINY
from stepwise_dpo.preferences.pairs import PreferencePair, Step, load_pairs, save_pairs
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.own_runs import OwnRuns
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.ui import compare_figures, compare_views
from stepwise_dpo.ui.address import read_address
from stepwise_dpo.ui.compare_choice import (
    STORED,
    Choice,
    Session,
    View,
    both,
    check_prompt,
    chosen,
    defaults,
    examples_of,
    look_up,
    opened_run,
    sources_of,
    typed,
)
from stepwise_dpo.ui.compare_link import follow, link_of
from stepwise_dpo.ui.compare_tab import row_of, summary_html, with_rewards
from stepwise_dpo.ui.comparison import FILTERS, PAGE_SIZE, Compared, Likelihood, Place, Reply, Seen
from stepwise_dpo.ui.inference_results import jsonl_text
from stepwise_dpo.ui.judges import Judges
from stepwise_dpo.ui.library import ExampleSet, Library
from stepwise_dpo.ui.measuring import Measurements, models_of, names_of, replies_to, stored_comparison
from stepwise_dpo.ui.page import build_app
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.runs_view import look

HELD_OUT = load_pairs(MODELS_DIR.parent / "heldout_prm.json")
HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{x}} `x` \u202eabc"
PROMPT = "Start with 15. Add 13, then subtract 4. What is the result?"
BEFORE, AFTER = "before", "after"


def harmless(html):
    return "<img" not in html and "\u202e" not in html


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def one(margin_before, margin_after, text="a problem", solved=(None, None), trained_on=False, tokens=(4, 4)):
    example = PreferencePair(text, [Step("same", True), Step(text)], [Step("same", True), Step("bad", False)], text[:9])
    sides = [
        Seen(
            Likelihood((-1.0, -1.0 + margin * count), count),
            Likelihood((-1.0, -1.0), count),
            None if right is None else Reply((text,), True, right),
        )
        for margin, count, right in zip((margin_before, margin_after), tokens, solved, strict=True)
    ]
    return Compared(example, *sides, trained_on)


# ------------------------------------------------------------------------------------------------------------- views


def test_numbers_with_their_intervals():
    margins = [(-1, 1), (1, 1), (1, 2), (-1, 1)]
    html = compare_views.numbers_html([one(*both, str(n)) for n, both in enumerate(margins)], (BEFORE, AFTER))
    words = text_of(html)
    assert "Preference accuracy" in words
    assert "50.0% 15.0% to 85.0%" in words  # Wilson of 2 in 4
    assert "100% 51.0% to 100%" in words
    assert "+50.0 points 0.0 to +100.0" in words
    assert "Solve rate" not in words  # nobody answered
    # Only a change whose interval leaves 0 out has a colour.
    assert 'class="positive">+50.0' not in html
    sure = compare_views.numbers_html([one(m, 1.5 * m + 1, str(m)) for m in range(5)], (BEFORE, AFTER))
    assert 'class="positive">+2.00' in sure


def test_different_tokens_are_said_to_differ():
    assert compare_views.remarks([one(1, 1), one(1, 1, tokens=(4, 4))]) == []
    (remark,) = compare_views.remarks([one(1, 1), one(1, 1, tokens=(4, 7))])
    assert "different tokens" in remark


def test_the_table_marks_what_flipped():
    rows = [one(-1, 1, HOSTILE, (False, True)), one(1, -1, solved=(True, False)), one(1, 1, solved=(True, True))]
    html = compare_views.table_html(rows, (BEFORE, AFTER), Place(), 1)
    assert harmless(html)
    assert 'rejected → <b class="positive">chosen</b>' in html
    assert 'chosen → <b class="negative">rejected</b>' in html
    assert 'failed → <b class="positive">solved</b>' in html
    assert html.count("<td>solved</td>") == 1
    assert re.findall(r'data-key="(row:\d)" [^>]*aria-current="true"', html) == ["row:1"]
    assert "Previous" not in html
    assert (
        'aria-sort="descending"><button type="button" class="sort" data-key="sort:change"'
        in compare_views.table_html(rows, (BEFORE, AFTER), Place(sort="change", descending=True), 0)
    )
    assert re.findall('aria-label="What is (.+?)[?]"', html) == [
        *("Preferred answer", "Margin", "Change of the margin", "Answer"),
    ]
    assert "Nothing is “newly solved” here" in compare_views.table_html(
        rows[1:], (BEFORE, AFTER), Place(only="newly_solved"), 0
    )


def test_pages():
    rows = [one(number, number, f"problem {number}") for number in range(PAGE_SIZE + 2)]
    first = compare_views.table_html(rows, (BEFORE, AFTER), Place(), 0)
    assert f"1 to {PAGE_SIZE} of {PAGE_SIZE + 2}" in first
    assert 'data-key="page:0" disabled>Previous' in first
    # A page that isn't there is the last.
    last = compare_views.table_html(rows, (BEFORE, AFTER), Place(page=99), 0)
    assert re.findall(r"data-key=.row:(\d+)", last) == [str(PAGE_SIZE), str(PAGE_SIZE + 1)]


def test_filters_say_how_many():
    words = {key: words for words, key in compare_views.filter_choices([one(-1, 1), one(1, 1)])}
    assert list(words) == list(FILTERS)
    assert (words["all"], words["to_chosen"], words["newly_failed"]) == (
        "All (2)",
        "Flipped to chosen (1)",
        "Newly failed (0)",
    )


def test_one_example_three_times():
    html = compare_views.example_html(one(-1, 1, HOSTILE), (BEFORE, AFTER))
    assert harmless(html)
    values = [re.sub("<.*?>", "", value) for value in re.findall(r'class="value">(.*?)<', html)]
    assert values == [
        *("−1.00", "−5.00", "−1.00", "+3.00", "0.00", "+8.00"),
        *("−1.00", "−1.00", "−1.00", "−1.00", "0.00", "0.00"),
    ]
    words = text_of(html)
    assert "−5.00 0 (certain) log-probability of a step, nats; one scale for both models" in words
    assert "−8.00 +8.00 difference (log-ratio), nats; a scale of its own" in words
    assert "−1.000 → +1.000" in words
    # One scale for both models: the same value has the same colour in both.
    styles = dict(zip(values, re.findall(r'class="step" style="(.*?)"', html), strict=True))
    assert styles["−5.00"] != styles["−1.00"]


def test_answers_are_checked_step_by_step():
    right = Reply(("15 + 13 = 28", "28 - 4 = 24", "Answer: 24"), True, True, (0.9, 0.8, 0.7))
    wrong = Reply(("15 + 13 = 29", "29 - 4 = 25"), False, False)
    html = compare_views.answers_html(PROMPT, [right, wrong], (BEFORE, AFTER), "reward")
    assert "first error (checker)" in html
    assert "+0.80" in html
    assert "process reward of a step, by reward" in text_of(html)
    assert '<b class="negative">wrong</b> · cut off at the token limit' in html
    unknown = compare_views.answers_html("Hm?", [Reply((HOSTILE, " "), True, None), None], (BEFORE, AFTER))
    assert harmless(unknown)
    assert "The checker doesn’t know" in unknown
    assert "this model wasn’t asked" in unknown
    assert "(blank)" in unknown
    assert "No answers yet" in compare_views.answers_html("Hm?", [None, None], (BEFORE, AFTER))
    assert "an empty answer" in compare_views.answers_html("Hm?", [Reply((), True, None), None], (BEFORE, AFTER))


# ----------------------------------------------------------------------------------------------------------- figures


def test_bins_hold_every_margin_and_no_bin_holds_both_signs():
    values = [-0.31, -0.01, 0.0, 0.02, 3.5, 3.5]
    edges = compare_figures.bin_edges(values)
    assert any(edge == 0 for edge in edges)
    assert sum(compare_figures.counts(values, edges)) == len(values)
    negative = sum(compare_figures.counts(values, [edge for edge in edges if edge <= 0]))
    assert negative == 2
    assert sum(compare_figures.counts([0.0], compare_figures.bin_edges([0.0]))) == 1


def test_figures_of_margins():
    rows = [one(-1, 1, HOSTILE), one(1, -1), one(1, 2), one(1, 0)]
    histogram, scatter = compare_figures.margin_charts(rows, ("<b>one</b>", AFTER))
    assert harmless(json.dumps([histogram, scatter]))
    assert [sum(trace["y"]) for trace in histogram.figure["data"]] == [4, 4]
    assert histogram.figure["data"][0]["name"] == "&lt;b&gt;one&lt;/b&gt;"
    groups = {trace["name"]: trace for trace in scatter.figure["data"]}
    assert groups["flipped to chosen (1)"]["customdata"] == ["row:0"]
    assert groups["flipped to rejected (1)"]["customdata"] == ["row:1"]
    assert groups["same preference (2)"]["customdata"] == ["row:2", "row:3"]  # a tie is neither
    assert groups["same preference (2)"]["y"] == pytest.approx([2, 0])


# ---------------------------------------------------------------------------------------------- choosing, measuring


def make_run(runs_dir, name, model, rows, data):
    run = RunDirectory(runs_dir / name)
    run.create(make_config({"data": str(data), "model": model, "loss": "dpo"}))
    run.write_status(RunStatus("finished", started=time.time(), global_step=3, max_steps=3))
    run.final.mkdir()
    for file in (MODELS_DIR / POLICY).iterdir():
        shutil.copy(file, run.final)
    (run.path / "examples.jsonl").write_text(jsonl_text(rows), encoding="utf-8")
    return run


@pytest.fixture
def runs(tmp_path):
    data = tmp_path / "trained.json"
    save_pairs(HELD_OUT[4:8], data)
    rows = [one(-1, 1, "problem 1"), one(1, 1, "problem 2"), one(0.5, 1, "problem 3")]
    make_run(tmp_path / "runs", "20260101-000000-dpo-aaaa", POLICY, rows[:2], data)
    make_run(tmp_path / "runs", "20260102-000000-dpo-bbbb", TINY, rows[1:], data)
    make_run(tmp_path / "runs", "20260103-000000-dpo-cccc", POLICY, [], tmp_path / "gone.json")
    failed = RunDirectory(tmp_path / "runs" / "20260104-000000-dpo-dddd")
    failed.create(make_config({"data": str(data), "model": POLICY, "loss": "dpo"}))
    failed.write_status(RunStatus("failed", started=time.time(), error="no"))
    return Supervisor(tmp_path / "runs")


@pytest.fixture
def models(runs):
    return {model.key: model for model in models_of(look(OwnRuns(runs)))}


def keys(which, run):
    return f"{which}:2026010{run}-000000-dpo-{'abcd'[run - 1] * 4}"


def choice(before, after, source=STORED, number=40):
    return Choice(before, after, source, number)


LIBRARY = Library((ExampleSet("heldout_prm.json", tuple(HELD_OUT)), ExampleSet("mine", ())), "mine")


def test_what_can_be_compared(models):
    assert list(models) == [
        *(
            keys("after", 3),
            keys("before", 3),
            keys("after", 2),
            keys("before", 2),
            keys("after", 1),
            keys("before", 1),
        ),
    ]
    first = models[keys("before", 1)], models[keys("after", 1)]
    assert (first[0].path, first[1].path) == (POLICY, str(first[1].view.run.final))
    assert names_of(*first) == ("before", "after")
    other = names_of(models[keys("before", 1)], models[keys("after", 2)])
    assert other == ("Base of DPO · 1 Jan 00:00:00", "DPO · 2 Jan 00:00:00")


def test_without_a_finished_run_the_page_says_why(models):
    assert "No finished run yet" in compare_views.nothing_yet([])
    ended = models[keys("after", 1)].view
    assert "No finished run yet" in compare_views.nothing_yet([ended])  # such as one that failed
    running = ended._replace(status=replace(ended.status, state="running"))
    assert text_of(compare_views.nothing_yet([ended, running])).strip() == (
        "DPO · 1 Jan 00:00:00 is still going What it changed appears here when it ends."
    )
    assert "No finished run yet" in compare_views.nothing_yet([running._replace(discarded=True)])


def test_bundled_held_out_sets_are_offered_once():
    some = ExampleSet("onpolicy_heldout_prm.json", tuple(HELD_OUT[:5]))
    library = Library((some, *LIBRARY.sets), "mine")
    held_out = [(f"a bundled held-out set, {name}", name) for name in ("onpolicy_heldout_prm.json", "heldout_prm.json")]
    assert sources_of(library)[1:] == [*held_out, ("the open set, mine", "open")]
    assert sources_of(library.opened(some.name))[1:] == held_out
    found, where = examples_of(choice("", "", some.name, 3), library, 12)
    assert (found, where) == (tuple(HELD_OUT[:3]), " (the first 3 of 5 of onpolicy_heldout_prm.json)")


def test_the_sessions_run_is_compared_with_its_base(models):
    every = list(models.values())
    nothing = choice(None, None, "heldout_prm.json")
    assert defaults(every, "20260101-000000-dpo-aaaa", nothing)[:3] == (keys("before", 1), keys("after", 1), STORED)
    assert defaults(every, "no such run", nothing)[:2] == (keys("before", 3), keys("after", 3))
    assert defaults([], "", nothing)[:2] == (None, None)
    assert chosen(every, choice(keys("before", 1), keys("after", 2)))
    assert not chosen(every, nothing)


def test_the_chosen_run_is_the_sessions(runs, models):
    """So the address names it; whoever comes back to the tab finds the other fields as they were."""
    every = list(models.values())
    assert opened_run(every, choice(keys("before", 1), keys("after", 2))) == "20260102-000000-dpo-bbbb"
    assert opened_run(every, choice(keys("after", 2), keys("before", 1))) == ""
    assert opened_run(every, choice(None, "after:gone")) == ""

    page = build_app(runs.runs_dir)
    numbers = {getattr(block, "elem_id", None): number for number, block in page.blocks.items()}
    functions = [function for function in page.fns.values() if function.fn]
    pick = next(function for function in functions if (numbers["compare-after"], "input") in function.targets)
    show = next(f for f in functions if f.fn.__name__ == "on_show" and pick.outputs[3] in f.outputs)
    wish = choice(keys("before", 1), keys("after", 2), "heldout_prm.json", 12)
    state = ["", LIBRARY, "visitor"]
    run_id, _, _, _, picked, *_ = pick.fn(Session(), *state, *wish)
    assert run_id == picked.run == "20260102-000000-dpo-bbbb"
    assert (pick.outputs[0], pick.outputs[4]) == tuple(show.inputs[:2])
    kept = show.fn(run_id, picked, *state, *wish)[:3]
    assert [field.value for field in kept] == [*wish[:3]]
    fresh = show.fn(run_id, Session(), *state, None, None, STORED, 12)[:3]  # a page that was opened just now
    assert [field.value for field in fresh] == [keys("before", 2), keys("after", 2), STORED]
    assert pick.fn(Session(), *state, *wish._replace(after=keys("before", 2)))[0] == gr.skip()

    # A refresh, or somebody with the link, finds the same.
    link = read_address({"run": run_id, **link_of(picked, run_id)}).comparison
    linked = show.fn(run_id, Session(run=run_id, link=link), *state, None, None, STORED, 40)
    assert [field.value for field in linked[:3]] == [*wish[:3]]
    assert linked[3]["value"] == wish.number
    assert link_of(linked[5], run_id) == link._asdict()
    # Another run was opened meanwhile: that one is compared with its base.
    other = show.fn("20260101-000000-dpo-aaaa", picked, *state, *wish)[:3]
    assert [field.value for field in other] == [keys("before", 1), keys("after", 1), STORED]


def test_a_run_that_ends_fills_the_tab_only_where_there_was_nothing(runs, models):
    page = build_app(runs.runs_dir)
    numbers = {getattr(block, "elem_id", None): number for number, block in page.blocks.items()}
    ended = next(f for f in page.fns.values() if f.fn and f.fn.__name__ == "on_ended")
    assert ended.targets == [(numbers["pulse"], "ended")]
    state = ["", LIBRARY, "visitor"]
    nothing = choice(None, None)
    assert all(value == gr.skip() for value in ended.fn("", Session(), *state, *nothing))  # nobody has opened the tab
    filled = ended.fn("20260101-000000-dpo-aaaa", Session(choice=nothing), *state, *nothing)
    assert [field.value for field in filled[:2]] == [keys("before", 1), keys("after", 1)]
    view = filled[5].view
    assert view is not None
    looking = choice(keys("before", 1), keys("after", 2))
    grown = ended.fn("", Session(view=view, choice=looking), *state, *looking)
    assert [len(field.choices) for field in grown[:2]] == [len(models)] * 2
    assert all(value == gr.skip() for value in grown[2:])
    gone = choice("before:gone", keys("after", 2))
    assert all(value == gr.skip() for value in ended.fn("", Session(view=view, choice=gone), *state, *gone))


def test_a_run_that_ends_is_shown_where_another_one_stood_in_for_it(runs):
    page = build_app(runs.runs_dir)
    ended = next(f for f in page.fns.values() if f.fn and f.fn.__name__ == "on_ended")
    pick = next(f.fn for f in page.fns.values() if f.fn and f.fn.__name__ == "on_pick")
    show = next(f.fn for f in page.fns.values() if f.fn and f.fn.__name__ == "on_show" and f.outputs == ended.outputs)
    state = ["", LIBRARY, "visitor"]
    going = runs.run("20260102-000000-dpo-bbbb")
    final = going.final.rename(going.path / "later")  # without a model, as while it goes on
    session = show(going.id, Session(), *state, *choice(None, None))[5]
    stand_in = session.choice
    assert stand_in[:2] == (keys("before", 3), keys("after", 3))
    assert not any(link_of(session, going.id).values())  # so whoever opens the link later sees this run, too
    assert ended.fn(going.id, session, *state, *stand_in)[5] == gr.skip()  # another one has ended
    by_hand = choice(keys("before", 1), keys("after", 1))
    picked = pick(session, *state, *by_hand)
    against = choice(keys("before", 1), keys("before", 3))
    bases = pick(session, *state, *against)

    final.rename(going.final)
    for shown in (ended.fn, show):  # on any tab, and where the page didn't hear of the end
        switched = shown(going.id, session, *state, *stand_in)
        assert [field.value for field in switched[:2]] == [keys("before", 2), keys("after", 2)]
        assert switched[5].view is not None
    assert ended.fn(picked[0], picked[4], *state, *by_hand)[5] == gr.skip()
    assert ended.fn(going.id, bases[4], *state, *against)[5] == gr.skip()


def session_of(rows, **fields):
    return Session(View("", (BEFORE, AFTER), tuple(rows), ""), **fields)


RUN_1 = "20260101-000000-dpo-aaaa"


def test_the_address_of_a_comparison_says_what_the_tab_would_not_show_by_itself(models):
    assert not any(link_of(Session(), RUN_1).values())  # the tab has not been opened
    by_itself = session_of([one(1, 1)], choice=choice(keys("before", 1), keys("after", 1), STORED, 12), run=RUN_1)
    assert not any(link_of(by_itself, RUN_1).values())
    assert not any(link_of(by_itself._replace(row=2), "another").values())  # which the tab opens next

    rows = [one(number, -number, f"problem {number}") for number in range(40)]
    chosen_now = choice(keys("before", 2), keys("after", 1), "open", 12)
    place = Place("flipped", "after", descending=True, page=1)
    written = link_of(session_of(rows, place=place, row=20, choice=chosen_now, run=RUN_1), RUN_1)
    assert written == {
        "before": keys("before", 2),
        "after": keys("after", 1),
        "on": "open",
        "number": "12",
        "only": "flipped",
        "sort": "-after",
        "row": "21",
    }
    link = read_address(written).comparison
    waiting = Session(run=RUN_1, link=link)
    assert link_of(waiting, RUN_1) == written  # also before the tab is opened
    followed = follow(waiting, list(models.values()), RUN_1, choice(None, None), LIBRARY, 120)
    assert (followed.choice, followed.lacking) == (chosen_now, "")
    opened = followed.session.showing(View("", (BEFORE, AFTER), tuple(rows), ""))
    # The page of the table that has the row: the 20th of those that flipped, by falling margin.
    assert (opened.place, opened.row) == (place, 20)
    assert link_of(opened, RUN_1) == written
    assert opened._replace(view=None).showing(View("", (BEFORE, AFTER), tuple(rows[:3]), "")).row == 0


@pytest.mark.parametrize(
    ("query", "expected", "lacking"),
    [
        ({"before": "before:../../etc", "row": "3"}, (keys("before", 1), keys("after", 1), STORED, 40, 0), "models"),
        ({"on": "nowhere.json", "row": "3"}, (keys("before", 1), keys("after", 1), STORED, 40, 0), "examples"),
        ({"on": "open", "number": "999"}, (keys("before", 1), keys("after", 1), "open", 120, 0), ""),
        ({"on": "open", "number": "0"}, (keys("before", 1), keys("after", 1), "open", 4, 0), ""),
        ({"row": "9" * 40, "only": "x", "sort": "y"}, (keys("before", 1), keys("after", 1), STORED, 40, 999999998), ""),
        ({"number": "٣", "row": "-3"}, (keys("before", 1), keys("after", 1), STORED, 40, 0), ""),
    ],
)
def test_a_link_that_anybody_wrote_is_followed_as_far_as_it_leads(models, query, expected, lacking):
    waiting = Session(run=RUN_1, link=read_address(query).comparison)
    found = follow(waiting, list(models.values()), RUN_1, choice(None, None), LIBRARY, 120)
    assert (*found.choice, found.session.row) == expected
    assert found.session.place == Place()
    assert lacking in found.lacking
    assert bool(lacking) == bool(found.lacking)


@pytest.mark.parametrize("sent", [None, "", "before:../../etc", 3, ["after:x"]])
def test_a_browser_cannot_name_another_model(models, sent):
    with pytest.raises(ConfigError, match="choose both again"):
        both(list(models.values()), choice(keys("before", 1), sent))
    with pytest.raises(ConfigError, match="same model"):
        both(list(models.values()), choice(keys("after", 1), keys("after", 1)))


def test_what_the_runs_wrote_is_compared_where_they_measured_the_same(models):
    own = stored_comparison(models[keys("before", 1)], models[keys("after", 1)])
    assert [(row.before.margin, row.after.margin) for row in own] == [(-1, 1), (1, 1)]
    across = stored_comparison(models[keys("before", 1)], models[keys("after", 2)])
    assert [row.pair.prompt for row in across] == ["problem 2"]
    view, _ = look_up(
        list(models.values()), choice(keys("before", 1), keys("after", 3)), LIBRARY, Measurements(Policies()), 9
    )
    assert view is None


def test_remarks_and_head_of_a_comparison(models):
    measurements, every = Measurements(Policies()), list(models.values())
    view, _ = look_up(every, choice(keys("before", 2), keys("after", 2)), LIBRARY, measurements, 9)
    words = text_of(summary_html(view))
    assert "DPO · 2 Jan 00:00:00, before and after training" in words
    assert "measured on 2 examples, none of them trained on" in words
    assert "trained by nobody" in words  # of tiny
    unknown = view._replace(compared=(one(1, 1, trained_on=None), one(1, 1, trained_on=True)))
    assert "nobody knows how many of them trained on" in text_of(summary_html(unknown))


def test_damaged_records_are_explained(models):
    model = models[keys("after", 1)]
    (model.view.run.path / "examples.jsonl").write_text('{"id": "1"}\n')
    with pytest.raises(RunError, match=r"line 1 .* lacks .*measure the two now"):
        look_up(
            list(models.values()), choice(keys("before", 1), keys("after", 1)), LIBRARY, Measurements(Policies()), 9
        )


def test_examples_are_capped_and_named():
    pairs, where = examples_of(choice("", "", "heldout_prm.json", 8), LIBRARY, 12)
    assert (pairs, where) == (tuple(HELD_OUT[:8]), " (the first 8 of 120 of heldout_prm.json)")
    for sent in (1e9, float("nan"), float("inf"), -1, True, None, "7"):
        assert len(examples_of(choice("", "", "heldout_prm.json", sent), LIBRARY, 12)[0]) == 12
    with pytest.raises(ConfigError, match="mine has no examples"):
        examples_of(choice("", "", "open"), LIBRARY, 12)


def test_measuring_real_models(models):
    policies = Policies()
    measurements = Measurements(policies)
    every, wish = list(models.values()), choice(keys("before", 1), keys("after", 1), "heldout_prm.json", 10)
    view, instead = look_up(every, wish, LIBRARY, measurements, 10)
    assert view is None
    assert "Measure 10 examples" in instead
    pairs, _ = examples_of(wish, LIBRARY, 10)
    sides = both(every, wish)
    assert list(measurements.measure(sides[0], pairs)) == [8, 10]
    assert measurements.comparison(*sides, pairs) is None
    assert list(measurements.measure(sides[1], pairs[:3])) == [3]
    assert list(measurements.measure(sides[1], pairs)) == [7]  # the rest
    view, _ = look_up(every, wish, LIBRARY, measurements, 10)
    # Both are the bundled policy, once by name and once from the run's folder, in other batches.
    assert [row.change for row in view.compared] == pytest.approx([0] * 10, abs=1e-5)
    assert all(row.before.reply == row.after.reply for row in view.compared)
    assert view.compared[0].before.margin == pytest.approx(policies.logps(POLICY, pairs[:1])[0].margin)
    assert all(row.before.solved is not None for row in view.compared)
    assert [row.trained_on for row in view.compared] == [False] * 4 + [True] * 4 + [False] * 2
    gone = measurements.comparison(sides[0], models[keys("before", 3)], pairs)
    assert [row.trained_on for row in gone] == [False] * 10  # two bases: nothing was trained


def test_two_tokenizers_and_a_training_file_that_is_gone(models):
    measurements = Measurements(Policies())
    sides = models[keys("before", 2)], models[keys("after", 3)]
    for model in sides:
        assert list(measurements.measure(model, HELD_OUT[:2])) == [2]
    rows = measurements.comparison(*sides, HELD_OUT[:2])
    assert not any(row.same_tokens for row in rows)
    assert [row.trained_on for row in rows] == [None, None]


def test_answers_to_a_typed_problem_are_checked_and_judged():
    (reply,) = replies_to(Policies(), POLICY, [PROMPT])
    assert reply.solved is not None
    judged, empty = with_rewards(Judges(), REWARD, PROMPT, [reply, Reply((), True, None)])
    assert len(judged.rewards) == len(reply.steps) > 0
    assert all(-1 <= value <= 1 for value in judged.rewards)
    assert empty.rewards is None


@pytest.mark.parametrize(("sent", "words"), [("  ", "is empty"), (None, "is empty"), ("x" * 3_000, "3,000 characters")])
def test_typed_problems_are_checked(sent, words):
    with pytest.raises(ConfigError, match=words):
        check_prompt(sent)


def test_a_typed_problem_is_told_from_the_open_examples():
    view = View("", (BEFORE, AFTER), (one(1, 1, "first"), one(1, 1, "second")), "")
    assert not typed(Session(view, row=1), " second\n")
    assert typed(Session(view, row=1), "first")
    assert typed(Session(), "mine")
    assert not typed(Session(view), " ")


@pytest.mark.parametrize(
    ("key", "row"), [("row:1", 1), ("row:2", None), ("row:-1", None), ("1", None), ("page:1", None)]
)
def test_a_click_on_a_row_that_is_not_there(key, row):
    assert row_of(View("", (BEFORE, AFTER), (one(1, 1), one(1, 1)), ""), key) == row
