"""What a stranger is told never says where things lie on this machine: errors and logs name files only."""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

ROOT = Path(__file__).parents[2]

# Texts of others are escaped before they become HTML, so none of them looks like this.
_MESSAGE = re.compile(r'<div class="message [^"]*".*?</div>', re.DOTALL)


def places_of_this_machine(*more: Path) -> list[str]:
    """The folders whose paths are nobody's business, the longest first.

    Args:
        more: such as the folder of runs.
    """
    known = {ROOT, Path.cwd(), Path.home(), Path(sys.prefix), Path(sys.base_prefix), *more}
    found = {str(place) for path in known for place in (path.absolute(), path.resolve())}
    # "/" would take every slash.
    return sorted((place for place in found if len(Path(place).parts) > 1), key=len, reverse=True)


def without_places(text: str, places: Iterable[str]) -> str:
    """Leave the places out of a text that this program wrote: an error, a log.

    Only where a path may begin and end: "square/root" is no place below "/root".
    """
    for place in places:
        if place in text:
            text = re.sub(rf"(?<!\w){re.escape(place)}(?:[/\\]|(?![\w-]))", _shortened, text)
    return text


def _shortened(found: re.Match[str]) -> str:
    return "" if found[0].endswith(("/", "\\")) else "…"


def hide_places(function: Callable[..., Any], tell: Callable[[str], str]) -> Callable[..., Any]:
    """Wrap a handler or an endpoint, so that its messages and the errors that it raises name no place.

    All else that it returns stays as it is: examples are what the visitor wrote, whatever paths they speak of.

    Args:
        function: returns values for a browser, or yields them.
        tell: `without_places`, for the places of this machine.
    """
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def generating(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                for value in function(*args, **kwargs):
                    yield _told(value, tell)
            except Exception as error:
                raise _without(error, tell) from error

        return generating

    @wraps(function)
    def answering(*args: Any, **kwargs: Any) -> Any:
        try:
            return _told(function(*args, **kwargs), tell)
        except Exception as error:
            raise _without(error, tell) from error

    return answering


def _told(value: Any, tell: Callable[[str], str]) -> Any:
    """Rewrite the messages of `components.error`, `note` and `notes` in a handler's answer: one value, or a list."""
    if type(value) is list:
        return [_told(part, tell) for part in value]
    return _MESSAGE.sub(lambda found: tell(found[0]), value) if isinstance(value, str) else value


def _without(error: Exception, tell: Callable[[str], str]) -> gr.Error:
    """Gradio shows the words of every error; the log has all of it where the code is at fault."""
    if isinstance(error, gr.Error):
        return gr.Error(tell(error.message), print_exception=error.print_exception)
    return gr.Error(tell(str(error)))
