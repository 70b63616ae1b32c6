"""A person's note about a run: a small file beside it, kept apart from what the run itself writes."""

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.directory import RunDirectory, write_atomically

FILE = "notes.txt"

MAX_CHARACTERS = 300
"""A line or two; what is longer belongs into a notebook."""


def read_note(run: RunDirectory) -> str:
    """Read a run's note; "" where nobody wrote one."""
    try:
        return (run.path / FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RunError(f"run {run.id!r}: {FILE} can't be read: {error.strerror}") from error


def write_note(run: RunDirectory, text: object) -> None:
    """Replace a run's note; an empty one removes the file.

    Raises:
        RunError: it is no text, too long, or can't be written; the note that was there stays.
    """
    if not isinstance(text, str):
        raise RunError("a note must be a text")
    line = " ".join(text.split())
    if len(line) > MAX_CHARACTERS:
        raise RunError(f"a note has at most {MAX_CHARACTERS} characters, this one has {len(line)}; shorten it")
    try:
        if line:
            # Half of a surrogate pair can't be stored; a browser may send one.
            write_atomically(run.path / FILE, line.encode("utf-8", errors="replace").decode("utf-8"))
        else:
            (run.path / FILE).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"run {run.id!r}: the note can't be written: {error.strerror}") from error
