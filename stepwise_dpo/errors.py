"""Every error that this package raises on purpose.

    StepwiseDPOError
    ├── ConfigError   a setting is missing, unknown or out of range      (also a ValueError)
    ├── DataError     an example, a step or a file is not usable          (also a ValueError)
    ├── ModelError    a model can't be found, loaded or used as asked     (also a RuntimeError)
    └── RunError      a training run can't start, go on or be read        (also a RuntimeError)

A message names what is wrong, where, the value seen, and what to change. The command line prints it as one line and
the page beside the field; neither shows a traceback for these.
"""


class StepwiseDPOError(Exception):
    """Base of all errors that are the input's or the machine's fault, not the code's."""


class ConfigError(StepwiseDPOError, ValueError):
    """A setting is missing, unknown or out of range."""


class DataError(StepwiseDPOError, ValueError):
    """An example, a step or a data file is not usable."""


class ModelError(StepwiseDPOError, RuntimeError):
    """A model or tokenizer can't be found, loaded or used as asked."""


class RunError(StepwiseDPOError, RuntimeError):
    """A training run can't start, go on or be read."""
