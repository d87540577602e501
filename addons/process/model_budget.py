"""A budget on a model through the management API: for everybody or one virtual key, at every provider or one."""

from dataclasses import dataclass
from urllib.parse import urlencode

from addons.process.client import ConsoleClient, Json
from addons.process.management import BUDGETS

MODEL_CONFIGS = "/api/governance/model-configs"


@dataclass(frozen=True, slots=True)
class ModelTarget:
    """Whose calls it binds. None for `provider`: at each of them; None for `key_id`: everybody's."""

    model: str
    provider: str | None = None
    key_id: str | None = None

    def told(self, key: str | None) -> str:
        """`o3 at openai of virtual key robot`; `key` is how the person named it."""
        at = f" at {self.provider}" if self.provider else ""
        return f"{self.model}{at}" + (f" of virtual key {key}" if key else "")


def make_model_budget(client: ConsoleClient, target: ModelTarget, budget: Json) -> Json:
    """Makes the budget (`name`, `max_limit`, ... as the API takes them), with its model config where there is none yet.

    Raises as `ConsoleClient.call`.
    """
    scope = "virtual_key" if target.key_id else "global"
    existing = _config(client, target, scope)
    if existing is None:
        config = {"model_name": target.model, "provider": target.provider, "scope": scope, "scope_id": target.key_id}
        made = client.call("POST", MODEL_CONFIGS, {**config, "budgets": [budget]})["model_config"]["budgets"][0]
    else:
        owner = {"scope": "virtual_key_model" if target.key_id else "model", "scope_id": existing["id"]}
        made = client.call("POST", BUDGETS, {**budget, **owner})["budget"]
    shown: Json = made
    return shown


def _config(client: ConsoleClient, target: ModelTarget, scope: str) -> Json | None:
    """The model config that binds exactly these calls."""
    query = {"search": target.model, "scope": scope, "scope_id": target.key_id, "provider": target.provider, "from_memory": "true"}
    asked = urlencode({name: value for name, value in query.items() if value})
    found: list[Json] = client.get(f"{MODEL_CONFIGS}?{asked}")["model_configs"]
    for config in found:
        if config["model_name"] == target.model and config["provider"] == target.provider:
            return config
    return None
