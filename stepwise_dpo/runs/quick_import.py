"""Large imports without the garbage collector, which would look again and again through all that stays anyway."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Import or load within this block; afterwards the collector never looks through what there is by then.

    Later full collections are short, in a server as before a training run: with torch, Transformers and Gradio in
    memory each of them takes a third of a second, in which no other thread runs. It is about the whole process: what
    other threads hold at the end of the block is freed by its last reference only, and never as part of a cycle.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.collect()
        gc.freeze()
    finally:
        if enabled:
            gc.enable()
