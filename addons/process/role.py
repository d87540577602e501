"""Where a child begins: `python -m addons.process.role ROLE` runs `addons.process.ROLE` with the garbage collector at rest."""

import gc
import importlib
import sys


def main() -> None:
    """Import the role and run it. Looking for garbage while modules and the governance are read is a sixth of a start, and finds
    none; `collect_again` ends the rest."""
    gc.disable()
    importlib.import_module(f"addons.process.{sys.argv[1]}").main()


def collect_again(*thresholds: int) -> None:
    """From now on garbage is collected, with these thresholds if any. What stands now is never looked at again."""
    gc.collect()
    gc.freeze()
    if thresholds:
        gc.set_threshold(*thresholds)
    gc.enable()


if __name__ == "__main__":
    main()
