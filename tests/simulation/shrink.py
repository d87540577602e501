"""Makes a failing run short: leaves out steps as long as a promise is still broken, and prints what remains."""

from collections.abc import Callable

from tests.simulation.run import STEPS, Broken, run


def shrink(seed: int, runs_max: int = 400) -> tuple[frozenset[int], Broken | None]:
    """The steps that can be left out, and the failure that remains; None when the seed does not fail."""
    failure = attempt(seed, frozenset())
    if failure is None:
        return frozenset(), None
    skipped = frozenset(range(failure.step + 1, STEPS))
    width = max(1, failure.step // 2)
    while width and runs_max > 0:
        start = 0
        while start < STEPS and runs_max > 0:
            wanted = skipped | frozenset(range(start, start + width))
            start += width
            if wanted == skipped:
                continue
            runs_max -= 1
            shorter = attempt(seed, wanted)
            if shorter is not None:
                skipped, failure = wanted, shorter
        width //= 2
    return skipped, failure


def attempt(seed: int, skip: frozenset[int], once: Callable[..., object] = run) -> Broken | None:
    try:
        once(seed, skip=skip, trace=10_000)
    except Broken as broken:
        return broken
    return None
