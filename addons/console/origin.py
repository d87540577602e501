"""Which Host and Origin headers the console answers: a page of somebody else must not be able to speak to it."""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from store.settings import Settings


@dataclass(frozen=True, slots=True)
class HostRules:
    """Names the console goes by besides `localhost` and plain addresses."""

    names: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, settings: Settings, host: str) -> "HostRules":
        """From `console.public_url`, `console.allowed_hosts` and the address listened on."""
        names = {name.lower() for name in settings.console.allowed_hosts} | {host.lower()}
        origins: set[str] = set()
        if settings.console.public_url:
            parts = urlsplit(settings.console.public_url)
            names.add((parts.hostname or "").lower())
            origins.add(f"{parts.scheme}://{parts.netloc}".lower())
        return cls(frozenset(names - {""}), frozenset(origins))

    def host_ok(self, host_header: str) -> bool:
        """DNS rebinding needs a name of the attacker's: addresses, `localhost` and configured names are ours."""
        name = _hostname(host_header)
        if name is None:
            return False
        if name == "localhost" or name in self.names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def origin_ok(self, origin: str | None, fetch_site: str | None, host_header: str) -> bool:
        """Whether a request comes from our own page, or from no page at all."""
        if fetch_site in ("cross-site", "same-site"):
            return False
        if origin is None:
            return True
        if origin.lower() in self.origins:
            return True
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host_header.lower()


def _hostname(host_header: str) -> str | None:
    if not host_header or any(c in host_header for c in "/@?# ,"):
        return None
    try:
        return (urlsplit(f"//{host_header}").hostname or "").rstrip(".").lower() or None
    except ValueError:
        return None
