"""What the Rewards tab answers to its events: one example, the whole set, what somebody types."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import gradio as gr

from stepwise_dpo.errors import StepwiseDPOError
from stepwise_dpo.preferences.pairs import PreferencePair
from stepwise_dpo.ui import free_text
from stepwise_dpo.ui.components import empty_state, error, note
from stepwise_dpo.ui.data_actions import chosen_index
from stepwise_dpo.ui.judges import JUDGE_NOTES, JUDGES, check_model_name
from stepwise_dpo.ui.library import Library
from stepwise_dpo.ui.newest import Newest
from stepwise_dpo.ui.reward_rows import example_waterfall, plain_rows, question_html, rows_html, waiting_html
from stepwise_dpo.ui.reward_sets import (
    MAX_LOCAL,
    MAX_PUBLIC,
    NEEDS_SCORES,
    NO_HEATMAP,
    Judged,
    agreement,
    agreement_html,
    heatmap_value,
    judged,
    list_view,
    ordered,
    progress_html,
)
from stepwise_dpo.ui.reward_sources import cast_of, chosen_run, facts_of, judged_by, trained_runs
from stepwise_dpo.ui.reward_views import WHENS, Cast, Look, plan, read_look, unit_words, view_numbers
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.runs_view import RunView
from stepwise_dpo.ui.step_scores import Source, StepScores
from stepwise_dpo.ui.text import counted, shown
from stepwise_dpo.ui.waterfall import AGGREGATIONS


class Controls(NamedTuple):
    """What the tab's fields hold, unchecked: anybody can send anything; but the visitor comes from the session."""

    visitor: str
    query: Any
    sort: Any
    negative: Any
    model: Any
    run: Any
    quantity: Any
    when: Any
    aggregation: Any


class View(NamedTuple):
    """What is shown, checked, with the models behind it."""

    look: Look
    cast: Cast


class RewardsHandlers:
    """Answers the tab's events."""

    def __init__(self, scores: StepScores, reader: RunReader) -> None:
        self.scores, self.reader, self.public = scores, reader, reader.public
        self.limit = MAX_PUBLIC if reader.public else MAX_LOCAL
        self._examples, self._sets = Newest(), Newest()

    # ------------------------------------------------------------------------------------------------- one example

    def arrive(
        self, request: gr.Request, library: Library, selected: int, run_id: str, *fields: Any
    ) -> Iterator[list[Any]]:
        """The tab was opened: runs may have come or gone, the set may be another one.

        An example that nobody has judged yet is shown without its numbers first: the first models take seconds to load.
        """
        *values, drawn = fields
        controls = Controls(*values)
        runs = trained_runs(self.reader.own(controls.visitor))
        run = chosen_run(runs, run_id, controls.run)
        field = gr.Dropdown(**_offered(runs), value=run.run.id if run else "")
        controls = controls._replace(run=run.run.id if run else None)
        # One pair of tickets for both answers: what is clicked after the first one is newer than the second.
        session = str(request.session_hash)
        of_set, of_example = self._begin_set(session, library, controls), self._examples.begin(session)
        if waiting := self._waiting(library, selected, controls):
            overview = self._overview_if_last(session, of_set, library, selected, controls, drawn)
            yield [field, *self._if_last(session, of_example, waiting), *overview]
        example = self._if_last(session, of_example, self._one_example(library, selected, controls, False))
        yield [field, *example, *self._overview_if_last(session, of_set, library, selected, controls, drawn)]

    def ended(
        self, request: gr.Request, library: Library, selected: int, run_id: str, *fields: Any
    ) -> Iterator[list[Any]]:
        """A run has ended: the list of runs grows; where it was empty, the tab shows the run as if opened again."""
        controls = Controls(*fields[:-1])
        runs = trained_runs(self.reader.own(controls.visitor))
        if runs and controls.run == "":
            yield from self.arrive(request, library, selected, run_id, *fields)
        elif any(view.run.id == controls.run for view in runs):
            yield [gr.Dropdown(**_offered(runs)), *[gr.skip()] * 11]
        else:  # nobody has opened the tab, or the chosen run is gone
            yield [gr.skip()] * 12

    def _waiting(self, library: Library, selected: int, controls: Controls) -> list[Any] | None:
        """What stands in an example's place while it is judged; None where nothing has to be waited for."""
        pairs = library.current.pairs
        if not pairs:
            return None
        pair = pairs[max(0, min(selected, len(pairs) - 1))]
        try:
            view = self._view(controls)
        except StepwiseDPOError:
            return None
        shown_by = plan(view.look, view.cast).shown
        if shown_by is None or self.scores.known(shown_by, [pair])[0] is not None:
            return None
        if shown_by == view.cast.judge and not self.scores.judges.ready(shown_by.name):
            return None
        return ["", question_html(pair), *waiting_html(pair), gr.Button(visible=False)]

    def show_all(
        self, request: gr.Request, library: Library, selected: int, run_id: str, *fields: Any, load: bool = False
    ) -> list[Any]:
        """Show example and set as the fields say."""
        *values, drawn = fields
        controls = Controls(*values)
        session = str(request.session_hash)
        # Before the example, whose model may take seconds to load: what is clicked meanwhile is newer.
        ticket = self._begin_set(session, library, controls)
        example = self._example(request, library, selected, controls, load)
        return [*example, *self._overview_if_last(session, ticket, library, selected, controls, drawn)]

    def load(self, request: gr.Request, library: Library, selected: int, run_id: str, *fields: Any) -> list[Any]:
        """Load the chosen reward model and show everything."""
        return self.show_all(request, library, selected, run_id, *fields, load=True)

    def choose(
        self, request: gr.Request, event: gr.EventData, library: Library, selected: int, run_id: str, *fields: Any
    ) -> list[Any]:
        """An example was chosen in the list."""
        selected = chosen_index(library, event._data)
        return [selected, *self._example(request, library, selected, Controls(*fields))]

    def choose_with_list(
        self, request: gr.Request, event: gr.EventData, library: Library, selected: int, run_id: str, *fields: Any
    ) -> list[Any]:
        """An example was chosen in the heatmap; the list shows it too."""
        selected = chosen_index(library, event._data)
        controls = Controls(*fields)
        example = self._example(request, library, selected, controls)
        try:
            view = self._view(controls)
            known = self._known(library.current.pairs, view)
            listing = list_view(
                library.current.pairs, self._order(library, controls, known), known, selected, view.look
            )
        except StepwiseDPOError:
            return [selected, *example, gr.skip()]  # the example's message says it
        return [selected, *example, listing]

    def _example(
        self, request: gr.Request, library: Library, selected: int, controls: Controls, load: bool = False
    ) -> list[Any]:
        """Everything about one example, unless the session has asked for something else meanwhile."""
        session = str(request.session_hash)
        ticket = self._examples.begin(session)
        return self._if_last(session, ticket, self._one_example(library, selected, controls, load))

    def _if_last(self, session: str, ticket: int, now: list[Any]) -> list[Any]:
        return now if self._examples.is_last(session, ticket) else [gr.skip()] * len(now)

    def _one_example(self, library: Library, selected: int, controls: Controls, load: bool) -> list[Any]:
        """Message, question, rows, waterfall, remarks on the judge, the button that loads it."""
        pairs = library.current.pairs
        hidden = gr.Button(visible=False)
        if not pairs:
            return ["", "", empty_state("No examples in this set", "Add or load some in the Data tab."), "", "", hidden]
        pair = pairs[max(0, min(selected, len(pairs) - 1))]
        question = question_html(pair)
        try:
            view = self._view(controls)
            planned = plan(view.look, view.cast)
            if planned.shown is None:
                words = empty_state(f"Nothing “{WHENS[view.look.when].lower()}” to show", planned.missing)
                return ["", question, words + plain_rows(pair), "", "", hidden]
            judge = planned.shown
            if judge == view.cast.judge and not load and not self.scores.judges.ready(judge.name):
                message = note(f"{judge.title} is not loaded yet. To load it takes a moment, and memory.")
                return [message, question, plain_rows(pair), "", "", gr.Button(visible=True)]
            facts, problems = facts_of(self.scores, pair, view.look, view.cast)
        except StepwiseDPOError as problem:
            return [error(str(problem)), question, plain_rows(pair), "", "", hidden]
        assert facts is not None  # there is something to show, see above
        message = "".join([note(planned.note), note(view.cast.remark), *map(error, problems)])
        return [
            message,
            question,
            rows_html(pair, facts, view.look, view.cast),
            example_waterfall(facts, view.look),
            self._provenance(view, judge),
            hidden,
        ]

    def _provenance(self, view: View, source: Source) -> str:
        """Say which model, head, scale and aggregation made the numbers."""
        look, cast = view
        lines = [unit_words(look, cast)]
        judge = source if source.kind == "judge" else cast.judge
        if source.kind == "policy":
            lines.append(f"policy: {source.title}")
        else:
            after = look.when != "before" and cast.trained is not None
            policy = cast.trained.title if after and cast.trained else cast.policy.title
            lines.append(f"judge: {judged_by(self.scores, judge)}")
            lines.append(f"aggregation: {AGGREGATIONS[look.aggregation].lower()}")
            lines.append(f"gap and loss of the policy: {policy}")
        remark = note(JUDGE_NOTES[judge.name]) if judge.name in JUDGE_NOTES and source.kind == "judge" else ""
        return f'<p class="hint made-by">{" · ".join(map(shown, lines))}</p>{remark}'

    # --------------------------------------------------------------------------------------------------- many of them

    def show_set(self, request: gr.Request, library: Library, selected: int, run_id: str, *fields: Any) -> list[Any]:
        """List, agreement, heatmap and message about the set, of what has been scored so far."""
        *values, drawn = fields
        controls, session = Controls(*values), str(request.session_hash)
        ticket = self._begin_set(session, library, controls)
        return self._overview_if_last(session, ticket, library, selected, controls, drawn)

    def _begin_set(self, session: str, library: Library, controls: Controls) -> int | None:
        """Take a ticket to show the set; None while this very view of it is being scored.

        The scoring shows the same, and more, when it ends. The order in which Gradio begins two requests of different
        queues says nothing: the tab's arrival may begin after a click on “Score the set” that came later.
        """
        work = None
        with suppress(StepwiseDPOError):  # the set's message says it
            work = _work(library, controls, self._view(controls))
        return None if self._sets.works_on(session, work) else self._sets.begin(session)

    def _overview_if_last(
        self, session: str, ticket: int | None, library: Library, selected: int, controls: Controls, drawn: object
    ) -> list[Any]:
        """Give the overview, unless the session has asked for something else since `_begin_set`."""
        if ticket is None or not self._sets.is_last(session, ticket):
            return [gr.skip()] * 5
        now = self._overview(library, selected, controls, drawn)
        return now if self._sets.is_last(session, ticket) else [gr.skip()] * 5

    def _overview(self, library: Library, selected: int, controls: Controls, drawn: object) -> list[Any]:
        pairs = library.current.pairs
        try:
            view = self._view(controls)
        except StepwiseDPOError as problem:
            indices = library.current.found(str(controls.query or "")[:200])
            return [list_view(pairs, indices, {}, selected, Look()), "", NO_HEATMAP, error(str(problem)), None]
        known = self._known(pairs, view)
        order = self._order(library, controls, known)
        listing = list_view(pairs, order, known, selected, view.look, scored_only=bool(known))
        # A few examples that were looked at are no overview.
        asked = isinstance(drawn, tuple) and drawn[0] == _asked(library, view)
        if not known or not (asked or len(known) == min(len(pairs), self.limit)):
            return [listing, self._unscored(pairs, view), NO_HEATMAP, "", drawn if asked else None]
        source = plan(view.look, view.cast).shown
        title = source.title if source else ""
        signature = (_asked(library, view), (view, tuple(order), len(known), hash(pairs)))
        heatmap = gr.skip() if signature == drawn else heatmap_value(pairs, order, known, view.look, f"by {title}")
        figures = agreement_html(agreement(pairs, known, view.look), view.look)
        return [listing, figures, heatmap, note(self._incomplete(len(known), len(pairs))), signature]

    def _unscored(self, pairs: Sequence[PreferencePair], view: View) -> str:
        planned = plan(view.look, view.cast)
        if not pairs or planned.shown is None:
            return ""
        head = f"{counted(min(len(pairs), self.limit), 'example')} not scored yet"
        return empty_state(head, "“Score the set” draws every step of them, and says how far judge and labels agree.")

    def _incomplete(self, known: int, total: int) -> str:
        if known >= total:
            return ""
        if known < self.limit:
            return f"{known:,} of {counted(total, 'example')} are scored so far; the figures are of these."
        why = "a public page" if self.public else "this page"
        return f"The first {self.limit:,} of {total:,} examples are scored, which is as many as {why} scores of a set."

    def score_set(
        self, request: gr.Request, library: Library, selected: int, run_id: str, *fields: Any
    ) -> Iterator[list[Any]]:
        """Score what isn't scored yet, with progress; then show the set."""
        *values, drawn = fields
        controls = Controls(*values)
        session = str(request.session_hash)
        pairs = library.current.pairs[: self.limit]
        waiting = [gr.skip()] * 5
        idle = ["", gr.Button(visible=True), gr.Button(visible=False)]
        try:
            view = self._view(controls)
        except StepwiseDPOError as problem:
            self._sets.begin(session)
            yield [*waiting[:3], error(str(problem)), gr.skip(), *idle]
            return
        ticket = self._sets.begin(session, _work(library, controls, view))
        try:
            planned = plan(view.look, view.cast)
            if not pairs or planned.shown is None:
                words = planned.missing or "There are no examples to score; add or load some in the Data tab."
                yield [*waiting[:3], note(words), gr.skip(), *idle]
                return
            sources = [source for source in (planned.shown, planned.minus) if source is not None]
            for source in sources:
                todo = len(self.scores.unknown(source, pairs))
                busy = [gr.Button(visible=False), gr.Button(visible=True)]
                progress = progress_html(len(pairs) - todo, len(pairs), f"by {source.title}")
                # Where nothing is drawn, the advice to press the button stands there.
                figures = gr.skip() if drawn is not None and self._known(pairs, view) else ""
                yield [waiting[0], figures, *waiting[2:], progress, *busy]
                for done in self.scores.fill(source, pairs):
                    progress = progress_html(len(pairs) - todo + done, len(pairs), f"by {source.title}")
                    yield [*waiting, progress, gr.skip(), gr.skip()]
        except StepwiseDPOError as problem:
            yield [*waiting[:3], error(str(problem)), gr.skip(), *idle]
            return
        finally:
            self._sets.end(session, ticket)
        # Whoever has gone on to another view or set meanwhile shall not be taken back.
        if not (isinstance(drawn, tuple) and drawn[0] == _asked(library, view)):
            drawn = (_asked(library, view), None)
        yield [*self._overview_if_last(session, ticket, library, selected, controls, drawn), *idle]

    def score_set_if_needed(
        self, request: gr.Request, library: Library, selected: int, run_id: str, *fields: Any
    ) -> Iterator[list[Any]]:
        """Score the set where the chosen order, or the filter, needs it."""
        controls = Controls(*fields[:-1])
        if controls.negative is True or controls.sort in NEEDS_SCORES:
            yield from self.score_set(request, library, selected, run_id, *fields)
        else:
            yield [gr.skip()] * 8

    def stopped(self, request: gr.Request, library: Library, selected: int, run_id: str, *fields: Any) -> list[Any]:
        """Scoring was stopped; what is scored is shown and kept."""
        try:
            drawn: object = (_asked(library, self._view(Controls(*fields[:-1]))), None)
        except StepwiseDPOError:
            drawn = None  # the set's message says it
        self._sets.begin(str(request.session_hash))  # the work is over, whether or not its thread has noticed
        shown_now = self.show_set(request, library, selected, run_id, *fields[:-1], drawn)
        return [*shown_now, "", gr.Button(visible=True), gr.Button(visible=False)]

    def _known(self, pairs: Sequence[PreferencePair], view: View) -> dict[int, Judged]:
        """What is known of a set's examples in a view, by index; of the first ones, see `limit`."""
        planned = plan(view.look, view.cast)
        if planned.shown is None:
            return {}
        pairs = pairs[: self.limit]
        shown = self.scores.known(planned.shown, pairs)
        subtracted = self.scores.known(planned.minus, pairs) if planned.minus else [None] * len(pairs)
        found = {}
        for index, (pair, scored, minus) in enumerate(zip(pairs, shown, subtracted, strict=True)):
            if scored is not None and (planned.minus is None or minus is not None):
                found[index] = judged(pair, view_numbers(view.look, scored, minus), view.look)
        return found

    def _order(self, library: Library, controls: Controls, known: Mapping[int, Judged]) -> list[int]:
        current = library.current
        found = current.found(str(controls.query or "")[:200])
        return ordered(current.pairs, found, known, str(controls.sort), controls.negative is True)

    def _view(self, controls: Controls) -> View:
        look = read_look(controls.quantity, controls.when, controls.aggregation)
        # A run that isn't there any more is none; ids are looked up, never made into paths.
        run = (
            chosen_run(trained_runs(self.reader.own(controls.visitor)), controls.run, None)
            if look.when != "before" or controls.run
            else None
        )
        return View(look, cast_of(controls.model, run, look.when, self.public))

    # ---------------------------------------------------------------------------------------------------- free text

    def judge_typed(
        self, problem: object, text: object, model: object, quantity: object, aggregation: object
    ) -> list[str]:
        """Judge what somebody types: the rows, and what is wrong with the text."""
        try:
            typed = free_text.read_typed(problem, text)
            if typed is None:
                return [free_text.nothing_typed(), ""]
            name = check_model_name(model, JUDGES, self.public)
            look = read_look(quantity, "before", aggregation)
            if not self.scores.judges.ready(name):
                return [note(f"{name} is not loaded yet; load it above."), ""]
            scale = (
                ("probability" if look.aggregation == "product" else "centered") if look.of_policy else look.quantity
            )
            values = self.scores.judges.score_solutions(name, [(typed.prompt, [s.text for s in typed.steps])], scale)[0]
        except StepwiseDPOError as problem_found:
            return [gr.skip(), error(str(problem_found))]
        return [free_text.typed_html(typed, values, scale, look.aggregation, name), ""]


def _offered(runs: Sequence[RunView]) -> dict[str, Any]:
    """The choices of the run, and what is said below them."""
    # "" stays on offer: a request that was sent before this answer still has it.
    choices = [("none", ""), *((view.name, view.run.id) for view in runs)]
    return {
        "choices": choices,
        "info": "what “after” means" if runs else "what “after” means; train one in the Train tab",
    }


def _asked(library: Library, view: View) -> tuple[Any, ...]:
    """Name what somebody has asked to score: a set, by whom."""
    planned = plan(view.look, view.cast)
    return (library.open_name, planned.shown, planned.minus)


def _work(library: Library, controls: Controls, view: View) -> tuple[Any, ...]:
    """Name all that an overview depends on."""
    # As text: a field may hold anything that a browser can send, lists too.
    fields = tuple(str(field)[:200] for field in (controls.query, controls.sort, controls.negative))
    return (_asked(library, view), view.look, hash(library.current.pairs), *fields)
