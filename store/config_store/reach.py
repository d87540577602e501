"""Which `env.NAME` and `file:PATH` may be named from afar: a login to the API is no login to the machine.

Whoever may change providers also chooses where their keys are sent. Without a bound, a provider key `file:/etc/…` or `env.…` would
carry whatever the gateway's process can read to an address of the caller's choice.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from store.config_store.secret_text import APP_DIR_VARIABLE, SecretText
from store.errors import UserError

SECRETS_DIR = "secrets"
"""Of the app directory."""
MOUNTS = ("/run/secrets", "/var/run/secrets")
"""Where Docker and Kubernetes put what a container is to know."""
_KEY_NAME = re.compile(r"(?:\A|_)(?:API_?KEY|KEY|TOKEN|SECRET)(?:_|\d|\Z)|APIKEY", re.IGNORECASE)
_OUR_OWN = "TOLLGATE_"
FROM_AFAR = frozenset(("session", "bearer", "basic", "open"))
"""Ways of signing in at the console (`Actor.method`)."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What references may name."""

    app_dir: str = ""
    """Absolute; empty where it is not known."""
    taken: frozenset[str] = frozenset()
    """References that config.json uses for its own secrets: the encryption key, passwords."""

    def check(self, secret: SecretText, where: str = "value") -> None:
        """Raises UserError for a reference that only the machine's own people may make."""
        why = None
        if secret.env_name is not None:
            why = self._env(secret.env_name)
        elif secret.file_path is not None:
            why = self._file(secret.file_path)
        if why is not None:
            raise UserError(f"{where}: {why}; or name it in config.json, or with `tollgate import` while the gateway is stopped")

    def _env(self, name: str) -> str | None:
        if name.upper().startswith(_OUR_OWN) or f"env.{name}" in self.taken:
            return f"the variable {name} is one of the gateway's own and no provider's key"
        if _KEY_NAME.search(name) is None:
            return "over the API only variables whose name says that they are a key may be used, such as env.OPENAI_API_KEY"
        return None

    def _file(self, written: str) -> str | None:
        path = self._whole(written)
        if any(path == self._whole(taken.removeprefix("file:")) for taken in self.taken if taken.startswith("file:")):
            return "this file holds one of the gateway's own secrets"
        allowed = (*MOUNTS, self._whole(SECRETS_DIR))
        if any(path.startswith(f"{directory}/") for directory in allowed):
            return None
        return f"over the API only files below {', '.join(MOUNTS)} and the app directory's {SECRETS_DIR}/ may be used"

    def _whole(self, written: str) -> str:
        """The path without `..`, which would lead out again."""
        return posixpath.normpath(posixpath.join(self.app_dir.replace("\\", "/") or "/?", written.replace("\\", "/")))


def reach_of(settings: BaseModel, environ: Mapping[str, str]) -> Reach:
    """What config.json leaves: everything it names itself, outside of `providers` and `governance`, is its own."""
    taken: set[str] = set()
    for name in type(settings).model_fields:
        if name not in ("providers", "governance"):
            taken.update(secret.written for secret in secrets_in(getattr(settings, name)) if secret.is_reference)
    return Reach(environ.get(APP_DIR_VARIABLE, ""), frozenset(taken))


def secrets_in(value: Any) -> Iterator[SecretText]:
    """Every secret in a model, at any depth."""
    if isinstance(value, SecretText):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_in(item)
