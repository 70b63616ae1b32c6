"""What every command's options share: a parser that suggests, kinds of numbers, settings of a run."""

import argparse
import difflib
import math
import re
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from stepwise_dpo.learning.head_settings import DEFAULTS, HEADS, TOKEN_RULES
from stepwise_dpo.learning.names import REWARD
from stepwise_dpo.preferences.faults import short

MOST = 1_000_000_000
"""Above every count that a command takes: more is a slip of the keyboard."""


class Parser(argparse.ArgumentParser):
    """argparse, with a suggestion where it only says that something is unknown."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Suggest the nearest option for an unknown one."""
        known, unknown = super().parse_known_args(args, namespace)
        for word in unknown:
            if word.startswith("-"):
                option = word.split("=")[0]
                near = difflib.get_close_matches(option, self._option_string_actions, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; see {self.prog} --help"
                self.error(f"unknown option {option}{hint}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Suggest the nearest choice for an unknown one, say what a missing option takes, and exit with 2."""
        match = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        if match:
            near = difflib.get_close_matches(match[1], re.findall(r"[\w-]+", match[2]), n=1)
            message += f"; did you mean {near[0]}?" if near else ""
        missing = message.removeprefix("the following arguments are required: ")
        if missing != message and missing.startswith("-"):
            options = [self._option_string_actions[name.split("/")[0]] for name in missing.split(", ")]
            message = "; ".join(f"{option.option_strings[0]} is missing: {option.help}" for option in options)
        self.exit(2, f"error: {message}\n")


def add_command(
    commands: Any, name: str, help_text: str, function: Callable[[argparse.Namespace], int], examples: str
) -> argparse.ArgumentParser:
    """Add a command to a parser's subcommands; `function` runs it and returns its exit code."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".", epilog=examples
    )
    parser.set_defaults(command=function)
    return parser


def add_setting(
    parser: argparse.ArgumentParser, name: str, annotation: Any, help_text: str, default: Any, required: bool = False
) -> None:
    """Make an option of a field of a configuration; None stands for "not given", so that files and presets can speak.

    Only a text can be required, where nothing but the command line speaks.
    """
    option = "--" + name.replace("_", "-")
    if get_origin(annotation) in (UnionType, Union):  # a Literal with "| None" is still the old kind
        annotation = next(kind for kind in get_args(annotation) if kind is not NoneType)
    if default is not None and default is not PydanticUndefined:
        shown = " ".join(default) if isinstance(default, list) else default
        help_text += f" (default: {shown})"
    help_text = help_text.replace("%", "%%")
    if annotation is bool:
        parser.add_argument(option, action=argparse.BooleanOptionalAction, default=None, help=help_text)
    elif get_origin(annotation) is Literal:
        parser.add_argument(option, choices=get_args(annotation), help=help_text)
    elif get_origin(annotation) is list:
        (item,) = get_args(annotation)
        parser.add_argument(option, nargs="+", choices=get_args(item), metavar="NAME", help=help_text)
    else:
        metavar = {int: "N", float: "X"}.get(annotation, "TEXT")
        parser.add_argument(option, type=annotation, metavar=metavar, help=help_text, required=required)


def add_reward_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the options that choose a reward model and how it is asked; without a default there may be none."""
    ending = f" (default: {default})" if default else ""
    parser.add_argument(
        "--reward-model",
        default=default,
        metavar="MODEL",
        help=f"the judge: {REWARD!r} (bundled), 'tiny', a local folder or a Hub id{ending}",
    )
    folder = "default: what the model's folder says, else {}"
    parser.add_argument(
        "--head",
        choices=HEADS,
        help=f"how it scores ({folder.format('token_classification for such a model, verbalizer for others')})",
    )
    words, tag, token = DEFAULTS["verbalizer"], DEFAULTS["step_tag"], DEFAULTS["likelihood"]["token"]
    for kind in ("right", "wrong"):
        own = f"{words[f'{kind}_word']} for verbalizer, {tag[f'{kind}_word']} for step_tag"
        parser.add_argument(
            f"--{kind}-word",
            metavar="WORD",
            help=f"verbalizer, step_tag: what it says of a {kind} step ({folder.format(own)})",
        )
    parser.add_argument(
        "--template", metavar="TEXT", help="verbalizer: its question, {prompt} {previous} {step} {right} {wrong}"
    )
    parser.add_argument(
        "--tag", metavar="TEXT", help=f"step_tag: the text after each step ({folder.format(repr(tag['tag']))})"
    )
    parser.add_argument(
        "--token",
        choices=TOKEN_RULES,
        help=f"likelihood: a step's lowest token probability, or their geometric mean ({folder.format(token)})",
    )
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help="rows per forward (default: 8)")


def positive(text: str) -> int:
    """Read a whole number from 1 to MOST."""
    number = _whole_number(text, MOST)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def natural(text: str, most: int = MOST) -> int:
    """Read a whole number from 0 to `most`."""
    number = _whole_number(text, most)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, but is {number}")
    return number


def seed(text: str) -> int:
    """Read a seed, which NumPy and torch both take up to 2**32 - 1."""
    return natural(text, 2**32 - 1)


def temperature(text: str) -> float:
    """Read a temperature; below a thousandth, dividing by it leaves the range of numbers, and nothing is random."""
    number = real_number(text)
    if number < 1e-3:
        raise argparse.ArgumentTypeError(f"must be at least 0.001, not {text}")
    return number


def real_number(text: str) -> float:
    """Read a finite number."""
    try:
        number = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number, not {short(text)!r}") from error
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a finite number, not {short(text)}")
    return number


def positive_number(text: str) -> float:
    """Read a number above 0."""
    number = real_number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return number


def _whole_number(text: str, most: int) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {short(text)!r}") from error
    if number > most:
        raise argparse.ArgumentTypeError(f"must be at most {most:,}, not {short(text)}")
    return number
