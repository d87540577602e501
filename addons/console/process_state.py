"""What the supervisor last told of its processes, as health pages and metrics show it."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process that should always be there."""

    name: str
    role: str
    """`worker` or `console`."""
    pid: int | None
    """None between a death and the next start."""
    ready: bool
    restarts: int


@dataclass(slots=True)
class FamilyState:
    """Empty until the first report."""

    processes: tuple[ProcessState, ...] = ()
    leaving: int = 0
    """Processes of earlier generations that finish their last calls."""
    reloads: Mapping[str, int] = field(default_factory=dict)
    """By how they went: `done`, `failed`."""

    def take(self, report: bytes) -> None:
        """Understand a report, one JSON object. One that is no report is logged and forgotten."""
        try:
            raw = json.loads(report)
            processes = tuple(
                ProcessState(one["name"], one["role"], one["pid"], bool(one["ready"]), int(one["restarts"]))
                for one in raw["processes"]
            )
            leaving, reloads = int(raw["leaving"]), {"done": int(raw["reloads"]), "failed": int(raw["reloads_failed"])}
        except (ValueError, KeyError, TypeError):
            logger.warning("the supervisor's report on the processes could not be understood")
            return
        self.processes, self.leaving, self.reloads = processes, leaving, reloads

    @property
    def workers(self) -> list[ProcessState]:
        return [one for one in self.processes if one.role == "worker"]

    @property
    def can_serve(self) -> bool:
        """False when there should be workers and none of them is ready."""
        return not self.workers or any(one.ready for one in self.workers)

    def components(self) -> dict[str, str]:
        """For health pages: `{"workers": "2 of 2 ready, 1 restart"}`; empty before the first report."""
        workers = self.workers
        if not workers:
            return {}
        restarts = sum(one.restarts for one in workers)
        words = f"{sum(one.ready for one in workers)} of {len(workers)} ready"
        if restarts:
            words += f", {restarts} restart{'s'[: restarts > 1]}"
        if self.leaving:
            words += f", {self.leaving} leaving"
        return {"workers": words}

    def metrics(self) -> Iterator[Metric]:
        """Prometheus families; none before the first report."""
        if not self.processes:
            return
        ready = GaugeMetricFamily("tollgate_process_ready", "1 while the process serves.", labels=("process",))
        restarts = CounterMetricFamily(
            "tollgate_process_restarts", "Times the process was started again after it died or hung.", labels=("process",)
        )
        for one in self.processes:
            ready.add_metric((one.name,), float(one.ready))
            restarts.add_metric((one.name,), one.restarts)
        yield from (ready, restarts)
        leaving = GaugeMetricFamily("tollgate_processes_leaving", "Processes of earlier generations with their last calls.")
        leaving.add_metric((), self.leaving)
        yield leaving
        reloads = CounterMetricFamily("tollgate_reloads", "Reloads asked for by SIGHUP, by how they went.", labels=("result",))
        for result, count in self.reloads.items():
            reloads.add_metric((result,), count)
        yield reloads
