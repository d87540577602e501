"""A supervisor with stand-in children: its own process is real and so are theirs, but they are small scripts."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT
from tests.support.waiting import eventually

CURTAIN = """
import runpy, sys
runpy.run_module(f"addons.process.{sys.argv.pop(1)}", run_name="__main__", alter_sys=True)
"""
"""What stands where the real children begin."""
BEGINNING = """
import json, os, signal, sys, threading, time
role, told = __name__, threading.Event()
role = os.path.basename(sys.argv[0]).removesuffix(".py")
stdin = open(0, "rb", buffering=0, closefd=False)
orders = json.loads(stdin.readline())
def note(word, **more):
    line = json.dumps({"role": role, "word": word, "pid": os.getpid(), "at": time.monotonic(), **more}) + "\\n"
    handle = os.open(os.path.join(orders["app_dir"], "events"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())
    os.close(handle)
def earlier(word):
    with open(os.path.join(orders["app_dir"], "events")) as file:
        return sum(1 for line in file if f'"{role}", "word": "{word}"' in line)
def die():
    # Not before everything is ready: that would be a death at start.
    while not os.path.exists(os.path.join(orders["app_dir"], "run.json")):
        time.sleep(0.01)
    os._exit(9)
def on_term(number, frame):
    note("told")
    told.set()
signal.signal(signal.SIGTERM, on_term)
def talk():
    # What the real ones do with the lines that follow their orders; without it a child never answers.
    def read():
        settings = stdin.readline()
        note("settings", document=json.loads(json.loads(settings)[1]))
        for line in iter(stdin.readline, b""):
            word, _, rest = line.decode().strip().partition(" ")
            if word == "ping":
                os.write(1, b"pong " + rest.encode() + b"\\n")
            else:
                note(word, rest=rest)
                if word in ("retire", "hurry"):
                    told.set()
    threading.Thread(target=read, daemon=True).start()
note("started", orders=orders, arguments=sys.argv[1:], optimize=sys.flags.optimize)
"""
"""What every stand-in does first: takes its orders, and notes what happens to it in a file."""
SERVE = 'print("ready", flush=True)\ntold.wait()\nnote("ended")\n'
"""A child that serves until it is told to end."""
TALK = "talk()\n" + SERVE
"""One that answers, and retires when it is asked to."""

DRIVER = """
import sys
from pathlib import Path
from addons.process import offspring, pulse, supervisor
from addons.process.options import ServeOptions
offspring.PROJECT = Path(sys.argv[1])
for setting in sys.argv[3:]:
    name, _, value = setting.partition("=")
    module, _, name = name.rpartition(".")
    owner = {"pulse": pulse, "": supervisor}[module]
    if not hasattr(owner, name):
        raise SystemExit(f"the supervisor has no {name}")
    setattr(owner, name, eval(value))
options = eval(sys.stdin.readline())
raise SystemExit(supervisor.serve(ServeOptions(Path(sys.argv[2]), port=0, inspect_port=0, console_port=0, **options)))
"""


@dataclass
class Stage:
    """An app directory and a project of stand-ins; `run` starts a supervisor on them."""

    root: Path
    running: list[subprocess.Popen[str]]
    groups: list[int] = field(default_factory=list)
    """Further process groups to end with the test."""

    @property
    def app_dir(self) -> Path:
        return self.root / "app"

    def play(self, role: str, script: str) -> None:
        """What children of that role do after their beginning."""
        folder = self.root / "project" / "addons" / "process"
        folder.mkdir(parents=True, exist_ok=True)
        for package in (folder.parent, folder):
            (package / "__init__.py").touch()
        (folder / "role.py").write_text(CURTAIN)
        (folder / f"{role}.py").write_text(BEGINNING + script)

    def driver(self) -> str:
        """The program of a supervisor on a project and an app directory (its arguments), with options on its stdin."""
        return DRIVER

    def run(self, *settings: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(self.root / "project"), str(self.app_dir), *settings],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=(self.root / "out").open("w"),
            stderr=(self.root / "err").open("w"),
            text=True,
            start_new_session=True,
        )
        self.running.append(process)
        assert process.stdin is not None
        process.stdin.write(repr({"inspect": False, "grace": 0.0, **options}) + "\n")
        process.stdin.close()
        return process

    def ready(self, *settings: str, **options: Any) -> subprocess.Popen[str]:
        process = self.run(*settings, **options)
        eventually(lambda: (self.said(), self.complained()), lambda texts: "ready gateway=" in texts[0], 20)
        return process

    def end(self, process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
        process.send_signal(number)
        return process.wait(15)

    def said(self) -> str:
        return (self.root / "out").read_text()

    def complained(self) -> str:
        return (self.root / "err").read_text()

    def events(self, role: str | None = None, word: str | None = None) -> list[dict[str, Any]]:
        """What the children noted, oldest first; `at` is on the monotonic clock."""
        try:
            text = (self.app_dir / "events").read_text()
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in text.splitlines()]
        return [event for event in found if role in (None, event["role"]) and word in (None, event["word"])]

    def order(self) -> list[tuple[str, str]]:
        """The notes of the end, in the order they were made."""
        return [(event["role"], event["word"]) for event in self.events() if event["word"] != "started"]

    def orders(self, role: str) -> dict[str, Any]:
        orders: dict[str, Any] = self.events(role, "started")[0]["orders"]
        return orders
