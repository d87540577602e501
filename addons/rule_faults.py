"""What keeps routing rules from being used, counted, and said once each."""

import logging
from collections import Counter

from store.config_store.routing_rules import RoutingRule

logger = logging.getLogger(__name__)


class RuleFaults:
    """Counts what keeps rules from being used, and names each once in the log."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """By (rule id, reason)."""

    def note(self, rule: RoutingRule, reason: str) -> None:
        """One more time. `reason` must not hold anything of a call."""
        self.counts[(rule.id, reason)] += 1
        if self.counts[(rule.id, reason)] == 1:
            logger.warning("routing rule %r is passed over: %s (said once)", rule.name, reason)
