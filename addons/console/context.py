"""What the console's handlers work with, gathered so that a test can hand in its own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from addons.console.price_books import PriceBooks, price_books
from addons.console.process_state import FamilyState
from addons.console.recalculation import Recalculation
from store.config_store.edits import Actor
from store.config_store.store import ConfigStore
from store.database import Connection, Database
from store.ledger.caps import cap_states
from store.ledger.types import CapState
from store.logs.types import CallRow
from store.settings import Settings


class LogQueries(Protocol):
    """The part of `store.logs.queries.LogReader` that the console asks."""

    @property
    def database(self) -> Database: ...

    def recent(self, limit: int = 50, before: str | None = None, **conditions: Any) -> Sequence[CallRow]: ...

    def get(self, call_id: str) -> CallRow | None: ...

    def count(self, at_most: int | None = None, **conditions: Any) -> int: ...

    def stats(self, start_ms: int | None = None, end_ms: int | None = None, **conditions: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the gateway can do its work, and each part of it in a word."""

    ok: bool
    components: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ConsoleContext:
    """Everything the console is given. `admin_token` opens it; `store` carries database, clock, ids and vault."""

    store: ConfigStore
    settings: Settings
    admin_token: str = field(repr=False)
    health: Callable[[], Health]
    """Called on a thread of `executor`; may raise StoreUnavailable."""
    logs: LogQueries | None = None
    version: str = ""
    host: str = "127.0.0.1"
    """The address the console listens on: decides whether it may be open, and which Host headers it answers."""
    gateway_url: str | None = None
    inspector_url: Callable[[], str | None] = lambda: None
    family: FamilyState = field(default_factory=FamilyState)
    """What the supervisor tells of the processes; nothing in a console without one."""
    states: Callable[[Connection, int, Iterable[str] | None], Sequence[CapState]] = cap_states
    """The ledger's sums of the named caps, or of all of them."""
    actor: Actor | None = None
    """Whom the audit log names whatever the credentials: the operating system's user of a command. None: who signed in."""
    prices: Callable[[], PriceBooks] = field(default_factory=price_books)
    """What models cost. The first call loads it; may raise SettingsError."""
    recalculation: Recalculation = field(default_factory=Recalculation)
    """The run that prices logged calls anew."""
    executor: Executor = field(default_factory=lambda: ThreadPoolExecutor(4, thread_name_prefix="console"))
