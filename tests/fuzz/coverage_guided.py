"""Fuzz a family of readers with libFuzzer through atheris, guided by coverage; not a test, nothing imports it.

    pip install atheris          # not in the test extra: it exists for few platforms
    python tests/fuzz/coverage_guided.py runs -max_total_time=300 [a folder for its corpus]

Every option after the family is libFuzzer's. Another error than this package's own ends it, and its input is written
to a file beside.
"""

import io
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["stepwise_dpo", "yaml"]):
    from readers import Readers, survives

    from stepwise_dpo.preferences.pairs import dump_lines

# fmt: off
WORDS = [
    "prompt", "chosen", "rejected", "id", "meta", "text", "label", "completions", "labels", "key", "index", "draft",
    "example", "sort", "page", "model", "set", "run", "tab", "loss", "epochs", "max_steps", "learning_rate",
    "loss_type", "eval_data", "batch_size", "seed", "preset", "state", "pid", "create_time", "global_step", "phase",
    "started", "updated", "error", "time", "owner", "server", "server_create_time", "before", "after", "solve_rate",
    "version", "open", "sets", "name", "file", "sha256", "size", "files", "data", "finished", "running", "dpo",
    "stepwise", "open.json", "tiny", "centered", "sum", "number",
]
# fmt: on


def value_of(data: atheris.FuzzedDataProvider, depth: int = 0) -> Any:
    """Build a value that JSON can hold from the fuzzer's bytes."""
    kind = data.ConsumeIntInRange(0, 9 if depth < 4 else 7)
    match kind:
        case 0 | 1:
            return WORDS[data.ConsumeIntInRange(0, len(WORDS) - 1)]
        case 2:
            return data.ConsumeUnicode(data.ConsumeIntInRange(0, 12))
        case 3:
            return data.ConsumeIntInRange(-4, 12)
        case 4:
            return data.ConsumeInt(9) ** data.ConsumeIntInRange(1, 40)
        case 5:
            return data.ConsumeFloat()
        case 6:
            return data.ConsumeBool()
        case 7:
            return None
        case 8:
            return [value_of(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 4))]
    keys = [*WORDS, 0, 1, 2, 3, 4] if depth == 0 else WORDS
    return {
        keys[data.ConsumeIntInRange(0, len(keys) - 1)]: value_of(data, depth + 1)
        for _ in range(data.ConsumeIntInRange(0, 5))
    }


def input_of(family: str, data: atheris.FuzzedDataProvider) -> Any:
    """Build what a family's readers take from the fuzzer's bytes."""
    if family in ("browser", "api"):
        return value_of(data)
    if family == "environment":
        return data.ConsumeUnicode(data.ConsumeIntInRange(0, 60))
    return data.ConsumeBytes(data.remaining_bytes())


def plant(corpus: Path, readers: Readers, family: str) -> None:
    """Write sound inputs into the corpus: what parses JSON is C, whose coverage nobody sees."""
    rows = dump_lines(readers.library.current.pairs[:2])
    solution = '{"prompt": "1 + 1?", "completions": ["2", "3"], "labels": [true, null], "id": "a", "meta": {"b": [1]}}'
    given = {
        "examples": [rows, f"[{rows.strip().replace(chr(10), ',')}]", solution, f"[{solution}]"],
        "settings": [
            "preset: demo\nepochs: 1\nlearning_rate: 5e-5",
            '{"data": "a", "loss_type": ["sigmoid"]}',
            "&a [*a]",
        ],
        "runs": [content.decode() for content in readers.kept.values()]
        + ['{"global_step": 1, "time": 2.5, "loss": 0.5}\n', '{"before": {"solve_rate": 0.5}, "after": {"a": null}}']
        + ['{"owner": null, "server": 1, "server_create_time": 2.5}', '{"files": {"a": {"size": 1, "sha256": "b"}}}'],
        "workspace": ['{"version": 1, "open": "open.json", "sets": [{"name": "a", "file": "b", "sha256": "c"}]}'],
    }
    count = len(readers.families[family])
    for number, text in enumerate(given.get(family, [])):
        for reader in range(count):
            (corpus / f"sound-{number}-{reader}").write_bytes(text.encode() + bytes([reader]))  # the last byte chooses


def main() -> None:
    """Take the family from the command line and fuzz it."""
    logging.disable()
    family = sys.argv.pop(1)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        made = Readers(Path(folder))
        for place in sys.argv[1:]:
            if Path(place).is_dir():
                plant(Path(place), made, family)
        readers = list(made.families[family].items())

        def one(given: bytes) -> None:
            data = atheris.FuzzedDataProvider(given)
            name, reader = readers[data.ConsumeIntInRange(0, len(readers) - 1)]
            rest = input_of(family, data)
            try:
                survives(reader, rest)
            except BaseException:
                out = io.StringIO()
                print(f"\n{family}: {name}: {rest!r:.2000}", file=out)
                sys.stderr.write(out.getvalue())
                raise

        atheris.Setup(sys.argv, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
