"""How torch's threads wait for each other where they share the cores with a page, a browser or other runs."""

from collections.abc import Mapping

_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""Read when torch is loaded: look for the others for some microseconds, then sleep.

By default a waiting thread spins for long, and beside any other load keeps the one that it waits for from its core. One
that sleeps at once has to be woken at each of a step's thousands of parallel pieces. GNU's OpenMP reads both, of which
the second has the last word; others read the first.
"""


def waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """Say how threads shall wait: variables to add to an environment, none where it says itself.

    Args:
        environment: of a process that will load torch.
    """
    return {} if any(name in environment for name in _WAITING) else dict(_WAITING)
