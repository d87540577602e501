"""`env`: the variables for a shell, with a virtual key that the caller may know."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from addons.process.ca import trust_for
from addons.process.client import ConsoleClient, find_running
from addons.process.environment import client_environment, render
from addons.process.management import KEY_PREFIX, find_key, list_keys, management, readable_value
from addons.process.stores import settings_of
from store.errors import UserError

DEFAULT_GATEWAY = "http://127.0.0.1:8080"
DEFAULT_KEY = "default"


def print_environment(app_dir: Path, key: str | None, shell: str | None, *, base_urls: bool, gateway: str | None) -> None:
    """Print the variables in the shell's spelling. Raises UserError: no such key, or one whose value is kept as a hash only."""
    address = gateway_address(app_dir, gateway)
    credential = key if key and key.startswith(KEY_PREFIX) else _value_of(app_dir, key)
    files = trust_for(app_dir / "ca", os.environ)
    variables = client_environment(address, credential, files.added, files.bundle, base_urls=base_urls, inherited=os.environ)
    sys.stdout.write(render(variables, shell or ("powershell" if os.name == "nt" else "sh")))


def gateway_address(app_dir: Path, wanted: str | None) -> str:
    """The gateway's address: what the user gave, the running one's, else the usual one with a note. Raises UserError."""
    if wanted is not None:
        return _checked(wanted)
    running = find_running(app_dir)
    if running is not None:
        return running.gateway
    note = f"no gateway runs in {app_dir} now; these point at {DEFAULT_GATEWAY}, where it listens by default"
    print(f"tollgate: {note}", file=sys.stderr)
    return DEFAULT_GATEWAY


def _checked(address: str) -> str:
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username or parts.query or parts.fragment or parts.path.strip("/"):
        raise UserError(f"--gateway {address!r} is not an address: write it like http://gateway.example:8080")
    return f"{parts.scheme}://{parts.netloc}"


def _value_of(app_dir: Path, wanted: str | None) -> str:
    wanted = wanted or settings_of(app_dir).gateway.default_virtual_key
    with management(app_dir) as client:
        key = find_key(client, wanted) if wanted else _usual_key(client)
    value = readable_value(key)
    if value is not None:
        return value
    raise UserError(
        f"the value of the virtual key {key['name']!r} is kept as a hash and cannot be shown: give it with -k {KEY_PREFIX}..., "
        "or use tollgate exec, which needs only the name"
    )


def _usual_key(client: ConsoleClient) -> dict[str, object]:
    keys = list_keys(client)
    named = [key for key in keys if key["name"] == DEFAULT_KEY] or (keys if len(keys) == 1 else [])
    if named:
        return named[0]
    if not keys:
        raise UserError("there is no virtual key yet: make one with tollgate keys create NAME")
    raise UserError(f"there are several virtual keys: say which one with -k, such as -k {keys[0]['name']}")
