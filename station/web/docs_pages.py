"""/docs and /redoc on a network without internet: their scripts come from here."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.staticfiles import StaticFiles

from station.assets import ASSETS

FILES = ASSETS / "web" / "docs"
PATH = "/docs-files"


def add_docs(api: FastAPI) -> None:
    """Swagger UI at /docs and ReDoc at /redoc, on /openapi.json."""
    api.mount(PATH, StaticFiles(directory=FILES), name="docs-files")

    @api.get("/docs", include_in_schema=False)
    def docs(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title="station API",
            swagger_js_url=f"{root}{PATH}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{PATH}/swagger-ui.css",
            swagger_favicon_url=f"{root}{PATH}/favicon.png",
            swagger_ui_parameters={"validatorUrl": None},  # it is somewhere on the internet
        )

    @api.get("/redoc", include_in_schema=False)
    def redoc(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return get_redoc_html(
            openapi_url=f"{root}/openapi.json",
            title="station API",
            redoc_js_url=f"{root}{PATH}/redoc.standalone.js",
            redoc_favicon_url=f"{root}{PATH}/favicon.png",
            with_google_fonts=False,
        )
