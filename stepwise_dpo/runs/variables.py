"""What a variable of the environment can say: text, in which pydantic would also find " 1", "+1", "1_0" and "1.0"."""

from typing import Annotated

from pydantic import BeforeValidator


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError("must be digits and nothing else")
    return int(text)


WholeNumber = Annotated[int, BeforeValidator(_number)]
"""A whole number from 0 on, of at most 20 digits and nothing else."""
