"""The command line: `python -m stepwise_dpo train | score | compare | evaluate … | data … | models …`.

Exit codes: 0 done, 1 the data, a model or a run is at fault, 2 the command itself is, 130 interrupted.
Everything heavy is imported by the command that needs it, so that `--help` answers at once.
"""

import io
import os
import sys
import warnings
from collections.abc import Sequence

from stepwise_dpo import __version__
from stepwise_dpo.cli import bench, data, evaluate, judge, models, train
from stepwise_dpo.cli.parsing import Parser
from stepwise_dpo.errors import ConfigError, StepwiseDPOError
from stepwise_dpo.runs.threads import waiting


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parser = build_parser()
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    # Set before Hugging Face's libraries read them: nothing here reports to anybody.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.update(waiting(os.environ))
    # TRL 1.16 uses names that Transformers 5.23 already calls old; nobody at a prompt can do anything about it.
    warnings.filterwarnings("ignore", category=FutureWarning)
    # A console of another encoding shall show a sign that it doesn't know as an escape, not end the command.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code: int = options.command(options)
    except ConfigError as error:
        return _fail(error, 2)
    except StepwiseDPOError as error:
        return _fail(error, 1, whole=options.command is data.validate)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more while closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def build_parser() -> Parser:
    """Build the parser of all commands."""
    parser = Parser(
        prog="python -m stepwise_dpo",
        description="Step-level preference optimisation: score steps, train with DPO or a step-wise loss, compare.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (train, judge, evaluate, data, models, bench):
        module.add_commands(commands)
    return parser


def _fail(error: StepwiseDPOError, code: int, whole: bool = False) -> int:
    """Print an error, by default its first line only: data files can have many problems."""
    first, *others = str(error).splitlines() or [""]
    if whole:
        first = "\n".join([first, *others])
    elif others:
        first += "  (data validate lists them)"
    print(f"error: {first}", file=sys.stderr)
    return code
