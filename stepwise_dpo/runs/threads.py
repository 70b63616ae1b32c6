"""How torch's threads wait for each other where they share the cores with a page, a browser or other runs."""

THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""Of the environment, read when torch is loaded: look for the others for some microseconds, then sleep.

By default a waiting thread spins for long, and beside any other load keeps the one that it waits for from its core: a
training step then takes up to four times as long. One that sleeps at once has to be woken at each of a step's thousands
of parallel pieces: a quarter of the step's time. GNU's OpenMP reads both, others the first.
"""
