"""`/api/openapi.json`: the description of this API, for generated clients and for people's tools."""

from typing import Any

from addons.console.handler import ConsoleHandler
from addons.console.openapi import openapi_document
from addons.console.routes import Route, operation


class OpenApiHandler(ConsoleHandler):
    """The whole description."""

    @operation("The description of this API", answer=dict[str, Any])
    async def get(self) -> None:
        settings = self.application.settings
        if "openapi" not in settings:  # it takes most of a second, and never changes
            settings["openapi"] = await self.on_thread(self._document, settings["api_routes"])
        self.send(settings["openapi"])

    def _document(self, routes: tuple[Route, ...]) -> dict[str, Any]:
        return openapi_document(routes, version=self.context.version, cookie_name=self.gatekeeper.cookie_name)


ROUTES = (Route("/api/openapi.json", OpenApiHandler),)
