"""What every command shares: where the app directory is, how errors are shown, and `serve` as the command meant by none."""

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import click

from addons.process.amounts import BudgetText, parse_amount, parse_budget
from addons.process.child import CannotRun, Ended
from store.errors import StoreUnavailable, UserError

APP_DIR_VARIABLE = "TOLLGATE_APP_DIR"
USER_ERROR = 2
INTERRUPTED = 130
_WHOLE_SENTENCE = 1000  # characters, where click by itself would end it with dots


def default_app_dir() -> Path:
    """`~/.config/tollgate`; on Windows the roaming profile."""
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "tollgate"
    return Path.home() / ".config" / "tollgate"


def app_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--app-dir`, also accepted before the command's name and from the environment."""
    return click.option(
        "--app-dir", type=click.Path(file_okay=False, path_type=Path), callback=_resolve_app_dir, metavar="DIR",
        help=f"Where configuration, ledger and CA live (env {APP_DIR_VARIABLE}; default ~/.config/tollgate).",
    )(command)  # fmt: skip


def _resolve_app_dir(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path:
    chosen = value or context.find_root().params.get("app_dir") or os.environ.get(APP_DIR_VARIABLE) or default_app_dir()
    return Path(chosen).expanduser().absolute()


class WholeGroup(click.Group):
    """A group whose help shows the first sentence of each command to its end."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, command.get_short_help_str(_WHOLE_SENTENCE)) for name, command in found if command and not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class DefaultGroup(WholeGroup):
    """A group where options without a command mean `serve`, and a mistyped command is told its likely name."""

    default_command: ClassVar[str] = "serve"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = self._end_of_own_options(args)
        if at == len(args) or (args[at].startswith("-") and args[at] not in ("--help", "-h", "--version")):
            args = [*args[:at], self.default_command, *args[at:]]
        return super().parse_args(ctx, args)

    @staticmethod
    def _end_of_own_options(args: Sequence[str]) -> int:
        at = 0
        while at < len(args):
            if args[at] == "--app-dir" and at + 1 < len(args):
                at += 2
            elif args[at].startswith("--app-dir="):
                at += 1
            else:
                break
        return at

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None:
            close = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(self.list_commands(ctx))}"
            raise click.UsageError(f"there is no command {name!r}: {hint}")
        return super().resolve_command(ctx, args)


class BudgetType(click.ParamType[BudgetText]):
    """An amount of money with an optional window, such as `2usd/1h`."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> BudgetText:
        if isinstance(value, BudgetText):
            return value
        with _as_usage_error(self, param, ctx):
            return parse_budget(value)


class AmountType(click.ParamType[int]):
    """An amount of money without a window, as nano-dollars."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        with _as_usage_error(self, param, ctx):
            if "/" in value:
                raise UserError(f"{value!r}: a window has no meaning here, give the amount alone")
            return parse_amount(value)


class PortType(click.ParamType[int]):
    """A TCP port; 0 stands for a free one."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536:
            return int(text)
        self.fail(f"{text!r} is not a port: give a number from 1 to 65535, or 0 for a free one", param, ctx)


@contextlib.contextmanager
def _as_usage_error(kind: click.ParamType[Any], param: click.Parameter | None, ctx: click.Context | None) -> Iterator[None]:
    try:
        yield
    except UserError as fault:
        kind.fail(str(fault), param, ctx)


BUDGET = BudgetType()
AMOUNT = AmountType()
PORT = PortType()


def run(group: click.Command, arguments: Sequence[str]) -> int:
    """Run a command line; the exit code. What the user can mend is one line on stderr and 2."""
    try:
        return int(group.main(list(arguments), prog_name="tollgate", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as fault:
        print(fault.format_message(), file=sys.stderr)
        return USER_ERROR
    except click.ClickException as fault:
        return _complain(_with_pointer(fault))
    except CannotRun as fault:
        _complain(str(fault))
        return fault.exit_code
    except (UserError, StoreUnavailable) as fault:
        return _complain(str(fault))
    except Ended as end:
        return end.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED


def _with_pointer(fault: click.ClickException) -> str:
    message = " ".join(fault.format_message().split())
    context = getattr(fault, "ctx", None)
    if context is None:
        return message
    return f"{message.rstrip('.')} (see {context.command_path} --help)"


def _complain(message: str) -> int:
    """One line whatever the message holds."""
    print("tollgate: " + " ".join(message.split()), file=sys.stderr)
    return USER_ERROR
