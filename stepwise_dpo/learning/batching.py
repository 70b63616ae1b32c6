"""Batches that fit into memory: bounded by what a forward takes, not by a number of rows alone.

Padding makes every row of a batch as long as the longest, attention takes memory with the square of that length, and
predictions take a number for every token of the vocabulary. So eight short examples are a small batch, and eight of
4,000 tokens are tens of gigabytes. What a row scores doesn't depend on its batch, up to rounding.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from transformers import PreTrainedModel

Item = TypeVar("Item")

BATCH_BYTES = 2**30
"""What a batch of more than one item may take by `row_bytes`; a single item is never split, however long it is."""

_ATTENTION_COPIES = 3
"""Position bias, its padded form, and scores or probabilities; of T5, 2.3 such copies were measured."""

_LOGIT_COPIES = 4
"""Logits, their log-softmax, its exponential, and a product of the two."""


class Shape(NamedTuple):
    """What one item adds to a batch.

    Attributes:
        rows: sequences.
        tokens: of its longest sequence that one attention reads.
        predicted: the most tokens of a sequence that get a distribution over the vocabulary.
    """

    rows: int
    tokens: int
    predicted: int


def row_bytes(model: PreTrainedModel, tokens: int, predicted: int) -> int:
    """Estimate the memory that one row of a forward without gradients takes, in bytes, as float32.

    Args:
        model: tells the number of attention heads and the size of the vocabulary.
        tokens: of the sequence, with padding.
        predicted: tokens that get a distribution over the vocabulary, with padding.
    """
    heads: int = getattr(model.config.get_text_config(), "num_attention_heads", None) or 32
    vocabulary: int = model.get_input_embeddings().num_embeddings
    return 4 * (_ATTENTION_COPIES * heads * tokens**2 + _LOGIT_COPIES * vocabulary * predicted)


def batches(
    model: PreTrainedModel, items: Iterable[Item], shape_of: Callable[[Item], Shape], most: int
) -> Iterator[list[Item]]:
    """Cut items into batches, in their order.

    Args:
        model: what will read them.
        items: taken one by one, as batches are asked for.
        shape_of: what an item adds.
        most: items of a batch.

    Yields:
        at least one item, and more only while all of them together stay within BATCH_BYTES.
    """
    batch: list[Item] = []
    rows = tokens = predicted = 0
    for item in items:
        shape = shape_of(item)
        wider = max(tokens, shape.tokens), max(predicted, shape.predicted)
        if batch and (len(batch) >= most or (rows + shape.rows) * row_bytes(model, *wider) > BATCH_BYTES):
            yield batch
            batch, rows, wider = [], 0, (shape.tokens, shape.predicted)
        batch.append(item)
        rows += shape.rows
        tokens, predicted = wider
    if batch:
        yield batch
