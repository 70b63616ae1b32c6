"""The commands that measure and print tables."""

import argparse
import json
import sys
from typing import Any

from stepwise_dpo.cli.output import check_place, quiet_libraries, write
from stepwise_dpo.cli.parsing import add_command, natural, positive, positive_number
from stepwise_dpo.runs.progress import ProgressBar

DEMO_EXAMPLES = """example:
  python -m stepwise_dpo bench demo --seeds 5

Trains the presets `demo`, `demo-dpo` and `demo-stepwise`, imitation of the chosen answers alone, and the presets at
five times their learning rates, and compares the greedy solve rate on fresh problems before and after."""

PAGE_EXAMPLES = """example:
  python -m stepwise_dpo bench page

Starts app.py from this clone beside an empty Gradio app, then drives it in Chromium: needs the test extra."""

SESSIONS_EXAMPLES = """example:
  python -m stepwise_dpo bench sessions --public --sessions 50 --minutes 30 --json sessions.json

Starts app.py from this clone and simulates that many browsers at its queue; needs nothing beside the project."""


def add_commands(commands: Any) -> None:
    """Add `bench` with its subcommands."""
    bench = commands.add_parser("bench", help="measure and print tables", description="Measurements.")
    kinds = bench.add_subparsers(metavar="COMMAND", required=True)
    demo = add_command(kinds, "demo", "measure what the demo's training changes", _demo, DEMO_EXAMPLES)
    demo.add_argument("--seeds", type=positive, default=5, metavar="N", help="runs of each kind (default: 5)")
    demo.add_argument("--problems", type=positive, default=600, metavar="N", help="fresh problems (default: 600)")
    demo.add_argument("--epochs", type=positive_number, metavar="N", help="of each run (default: its preset's)")
    page = add_command(kinds, "page", "measure how fast the page is, in a real browser", _page, PAGE_EXAMPLES)
    page.add_argument("--starts", type=positive, default=5, metavar="N", help="starts of the app (default: 5)")

    sessions = add_command(
        kinds, "sessions", "measure what many visitors at once lose or wait for", _sessions, SESSIONS_EXAMPLES
    )
    sessions.add_argument("--sessions", type=positive, default=50, metavar="N", help="at once (default: 50)")
    sessions.add_argument("--minutes", type=positive_number, default=2.0, metavar="N", help="how long (default: 2)")
    sessions.add_argument(
        "--runs", type=natural, default=10, metavar="N", help="how many of the sessions queue a run (default: 10)"
    )
    sessions.add_argument(
        "--public",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="start the app for strangers (default: off)",
    )
    sessions.add_argument("--json", metavar="FILE", help="write the figures there as well")


def _demo(options: argparse.Namespace) -> int:
    quiet_libraries()
    from stepwise_dpo.bench.demo import TABLE_HEADER, run_demo, table_line
    from stepwise_dpo.runs.config import PRESETS

    epochs = {} if options.epochs is None else {"epochs": options.epochs}
    presets = {name: settings | epochs for name, settings in PRESETS.items() if name.startswith("demo")}
    variants = {
        **presets,
        "demo, sft alone": {**presets["demo"], "loss_type": ["sft"]},
        **{
            f"{name}, rate x5": {**settings, "learning_rate": 5 * settings["learning_rate"]}
            for name, settings in presets.items()
        },
    }
    print(TABLE_HEADER)
    for result in run_demo(variants, range(1, options.seeds + 1), options.problems, ProgressBar("Runs", "run")):
        print(table_line(result), flush=True)
    return 0


def _page(options: argparse.Namespace) -> int:
    from stepwise_dpo.bench.page import measure_line, run_page

    for measure in run_page(options.starts):
        print(measure_line(measure), flush=True)
    return 0


def _sessions(options: argparse.Namespace) -> int:
    from stepwise_dpo.bench.sessions import Plan, as_json, run_sessions, table_lines

    if options.json:
        check_place(options.json)
    plan = Plan(options.sessions, options.minutes, options.runs, options.public)
    result = run_sessions(plan, lambda line: print(line, file=sys.stderr, flush=True))
    for line in table_lines(result):
        print(line, flush=True)
    if options.json:
        write(options.json, json.dumps(as_json(result), indent=1) + "\n")
    return int(bool(result.errors or result.lost))
