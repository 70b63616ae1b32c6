"""What a stranger is told never says where things lie on this machine: errors, logs and settings name files only."""

import inspect
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

ROOT = Path(__file__).parents[2]


def places_of_this_machine(*more: Path) -> list[str]:
    """The folders whose paths are nobody's business, the longest first.

    Args:
        more: such as the folder of runs.
    """
    known = {ROOT, Path.cwd(), Path.home(), Path(sys.prefix), Path(sys.base_prefix), *more}
    found = {str(place) for path in known for place in (path.absolute(), path.resolve())}
    # Gradio itself names the files below the folder of temporary ones; "/" would take every slash.
    kept = {str(Path(tempfile.gettempdir())), str(Path(tempfile.gettempdir()).resolve())}
    return sorted((place for place in found if len(Path(place).parts) > 1 and place not in kept), key=len, reverse=True)


def without_places(value: Any, places: Iterable[str]) -> Any:
    """Leave the places out of every text in a value that goes to a browser; what isn't text or JSON stays as it is."""
    if isinstance(value, str):
        for place in places:
            if place in value:
                value = value.replace(place + "/", "").replace(place + "\\", "").replace(place, "…")
        return value
    if type(value) is list:
        return [without_places(part, places) for part in value]
    if type(value) is dict:
        return {name: without_places(part, places) for name, part in value.items()}
    return value


def hide_places(function: Callable[..., Any], places: list[str]) -> Callable[..., Any]:
    """Wrap a handler or an endpoint, so that what it returns, yields or raises for the browser names no place."""
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def generating(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                for value in function(*args, **kwargs):
                    yield without_places(value, places)
            except Exception as error:
                raise _without(error, places) from error

        return generating

    @wraps(function)
    def answering(*args: Any, **kwargs: Any) -> Any:
        try:
            return without_places(function(*args, **kwargs), places)
        except Exception as error:
            raise _without(error, places) from error

    return answering


def _without(error: Exception, places: list[str]) -> gr.Error:
    """Gradio shows the words of every error; the log has all of it where the code is at fault."""
    if isinstance(error, gr.Error):
        return gr.Error(without_places(error.message, places), print_exception=error.print_exception)
    return gr.Error(without_places(str(error), places))
