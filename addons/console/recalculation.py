"""The one recalculation of logged costs that may run at a time, on a thread of its own; and how a logged call is priced."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Literal

from addons.console.model_list import Models, load_models
from addons.console.price_books import PriceBooks
from store.clock import Clock, Ids
from store.config_store.store import ConfigStore
from store.database import Database
from store.errors import Conflict, NotFound, StoreUnavailable, UserError
from store.logs.filters import LogFilter
from store.logs.recalculate import PriceOf, Progress, recalculate
from store.logs.types import CallRow
from store.money import MAX_NANOS
from store.prices.cost import cost_nanos
from store.usage import Usage

logger = logging.getLogger(__name__)

type Status = Literal["running", "completed", "cancelled", "failed"]


@dataclass(slots=True)
class Job:
    """One run."""

    id: str
    started_ms: int
    status: Status = "running"
    progress: Progress = field(default_factory=Progress)
    finished_ms: int | None = None
    error: str = ""
    stop: Event = field(default_factory=Event)


class Recalculation:
    """Starts, tells of and stops the run of this console. What is done stays done, whatever becomes of the process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._job: Job | None = None
        self._thread: Thread | None = None

    def start(
        self,
        database: Database,
        given: LogFilter,
        price_of: Callable[[], PriceOf],
        *,
        clock: Clock,
        ids: Ids,
        at_most: int | None = None,
    ) -> tuple[Job, bool]:
        """(the run, True when it is a new one): one that is on its way goes before. `price_of` is called on its thread."""
        with self._lock:
            if self._job is not None and self._job.status == "running":
                return self._job, False
            job = self._job = Job(ids.new(), clock.now_ms())
            run = (job, database, given, price_of, clock, at_most)
            self._thread = Thread(target=self._run, args=run, name="recalculation", daemon=True)
            self._thread.start()
            return job, True

    def job(self, job_id: str | None = None) -> Job | None:
        """The latest run; None when there was none yet. Raises NotFound for another id."""
        job = self._job
        if job_id and (job is None or job.id != job_id):
            raise NotFound(f"there is no recalculation {job_id!r}; the console remembers the latest alone")
        return job

    def cancel(self) -> Job:
        """Stop the run after the piece it is at. Raises Conflict when none is on its way."""
        with self._lock:
            job = self._job
            if job is None or job.status != "running":
                raise Conflict("no recalculation is running")
            job.stop.set()
            return job

    def close(self, seconds: float = 2.0) -> None:
        """Stop, and wait for it."""
        if self._job is not None:
            self._job.stop.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(
        self,
        job: Job,
        database: Database,
        given: LogFilter,
        price_of: Callable[[], PriceOf],
        clock: Clock,
        at_most: int | None,
    ) -> None:
        status: Status = "failed"
        try:
            recalculate(database, given, price_of(), job.progress, job.stop.is_set, at_most)
            status = "cancelled" if job.stop.is_set() else "completed"
        except (UserError, StoreUnavailable) as error:
            job.error = str(error)
        except Exception:
            logger.exception("a recalculation of logged costs failed")
            job.error = "it failed; the console's log says why"
        job.finished_ms = clock.now_ms()
        job.status = status


def todays_prices(store: ConfigStore, books: Callable[[], PriceBooks]) -> PriceOf:
    """Prices calls by what the logs know of them at the prices of this moment, overrides included. Raises SettingsError.

    The logs keep counts of input, output, cache reads and writes and reasoning. What they do not keep counts as ordinary: the
    tier of service, sound and pictures, an hour's cache, searches.
    """
    loaded = books()
    models = load_models(store, loaded)
    now_ms = store.clock.now_ms()

    def price_of(row: CallRow) -> tuple[int, str] | None:
        return _price(models, loaded, row, now_ms)

    return price_of


def _price(models: Models, books: PriceBooks, row: CallRow, now_ms: int) -> tuple[int, str] | None:
    usage = Usage(
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cache_read_tokens=row.cache_read_tokens,
        cache_write_tokens=row.cache_write_tokens,
        reasoning_tokens=row.reasoning_tokens,
    )
    if not (usage.input_tokens or usage.output_tokens) or not row.model:
        return None
    patch = models.scoped.find(row.virtual_key_id, row.provider, row.provider_key_id, row.model, row.operation)
    names = models.price_names(row.provider)
    # As a call is priced: an override for the model asked for decides, else the model that answered.
    wanted = [row.model] if patch is not None else [name for name in (row.answered_model, row.model) if name]
    for model in wanted:
        known_as = next((name for name in names if books.prices.price(name, model, now_ms) is not None), names[0])
        price = books.prices.price(known_as, model, now_ms, patch=patch)
        if price is not None:
            return min(cost_nanos(price, usage), MAX_NANOS), price.source
    return None
