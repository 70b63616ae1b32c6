"""What searching, sorting and the badges of a table need to know of an example, found out once."""

from typing import NamedTuple

from stepwise_dpo.preferences.pairs import PreferencePair, first_error
from stepwise_dpo.preferences.statistics import prompt_key


class ExampleFacts(NamedTuple):
    """Derived from one example; examples never change, so neither does this.

    Attributes:
        searchable: id, prompt and all steps, casefolded.
        prompt_key: decides whether two prompts are the same.
        chosen_steps: how many.
        rejected_steps: how many.
        first_error: index of the rejected side's first step that is labelled wrong; None where none is.
        labelled: how many steps of both sides have a label.
        problems: what is odd about it, in sentences.
    """

    searchable: str
    prompt_key: str
    chosen_steps: int
    rejected_steps: int
    first_error: int | None
    labelled: int
    problems: tuple[str, ...]


def facts_of(pair: PreferencePair) -> ExampleFacts:
    """Find out about one example."""
    steps = (*pair.chosen, *pair.rejected)
    return ExampleFacts(
        searchable="\n".join([pair.id, pair.prompt, *(step.text for step in steps)]).casefold(),
        prompt_key=prompt_key(pair.prompt),
        chosen_steps=len(pair.chosen),
        rejected_steps=len(pair.rejected),
        first_error=first_error(pair.rejected),
        labelled=sum(step.label is not None for step in steps),
        problems=tuple(pair.problems()),
    )
