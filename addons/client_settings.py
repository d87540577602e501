"""The `client` settings in force: those of config.json, and what was changed while the gateway runs, taken over beside the road."""

import logging
from collections.abc import Callable, Mapping

from addons.inspector import InspectorFeed
from addons.policy import Policy
from addons.services import LogsLike, Services
from store.config_store.change_client import settings_in_force
from store.config_store.snapshot import Snapshot
from store.logs.writer import LogWriter
from store.settings import Settings

logger = logging.getLogger(__name__)


class ClientSettings:
    """Gives the services another policy whenever the `client` settings of a snapshot are others. Used from the event loop."""

    def __init__(
        self,
        settings: Settings,
        logs: LogWriter,
        no_logs: LogsLike,
        make_policy: Callable[[Settings], Policy],
        feed: InspectorFeed | None = None,
    ) -> None:
        self._settings = settings
        self._feed = feed
        self._logs = logs
        self._no_logs = no_logs
        self._make_policy = make_policy
        self._known: Mapping[str, object] = {}

    def first(self, snapshot: Snapshot) -> tuple[Policy, LogsLike]:
        """The policy to begin with, and where rows go."""
        self._known = snapshot.client
        return self._made(settings_in_force(self._settings, snapshot.client))

    def follow(self, services: Services) -> Callable[[Snapshot], None]:
        """To be told of each new snapshot; never raises."""

        def take_over(snapshot: Snapshot) -> None:
            if snapshot.client == self._known:
                return
            self._known = snapshot.client
            try:
                services.policy, services.logs = self._made(settings_in_force(self._settings, snapshot.client))
            except Exception:
                logger.exception("the client settings could not be taken over; the last ones stay in force")
            else:
                logger.info("the client settings were changed")

        return take_over

    def _made(self, settings: Settings) -> tuple[Policy, LogsLike]:
        policy = self._make_policy(settings)
        retention_days = settings.logs_store.retention_days or settings.client.log_retention_days
        self._logs.keep(body_bytes=policy.body_log_bytes, retention_days=retention_days)
        if self._feed is not None:
            self._feed.keep(policy.body_log_bytes or "none")
        return policy, self._logs if settings.client.enable_logging and settings.logs_store.enabled else self._no_logs
