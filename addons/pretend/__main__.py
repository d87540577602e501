"""`python -m addons.pretend`: run the pretend provider as a process of its own."""

import argparse
import asyncio
import os
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from addons.pretend.provider import PretendProvider
from addons.pretend.steering import Behaviour, UnknownInstruction, steer


def main(arguments: list[str] | None = None) -> None:
    """Run until a signal ends the process. Prints one line, `pretend provider on http://HOST:PORT`, when it listens."""
    parser = argparse.ArgumentParser(prog="python -m addons.pretend", description="A provider that only pretends.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free port")
    parser.add_argument("--bill", type=Path, help="append a JSON line per call to this file")
    parser.add_argument("--keep", type=int, default=100, help="how many requests GET /__last can show")
    parser.add_argument(
        "--default", action="append", default=[], metavar="KEY=VALUE", help="what an x-pretend-KEY header would say"
    )
    parser.add_argument("--lifeline", action="store_true", help="end when standard input does, as when the parent dies")
    options = parser.parse_args(arguments)
    try:
        pairs = [text.partition("=") for text in options.default]
        defaults = steer(Behaviour(), {key: value if mark else "1" for key, mark, value in pairs})
    except UnknownInstruction as error:
        parser.error(str(error))
    if options.lifeline:
        threading.Thread(target=_end_with_stdin, name="lifeline", daemon=True).start()
    serving = _serve(options.host, options.port, options.bill, defaults, options.keep)
    try:
        _run(serving)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        parser.error(f"cannot listen on {options.host}:{options.port}: {error.strerror or error}")


def _end_with_stdin() -> None:
    """Every line of the bill is with the kernel already, so there is nothing to put in order first."""
    while os.read(0, 64):
        pass
    os._exit(0)


async def _serve(host: str, port: int, bill: Path | None, defaults: Behaviour, keep: int) -> None:
    provider = PretendProvider(now_ms=lambda: time.time_ns() // 1_000_000, bill_path=bill, defaults=defaults, keep=keep)
    bound = await provider.start(host, port)
    print(f"pretend provider on http://{host}:{bound}", flush=True)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await provider.stop()


def _run(serving: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)


if __name__ == "__main__":
    main()
