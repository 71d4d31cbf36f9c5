"""The stream behind the operator's page: whoever is gone, or reads nothing, does not keep others out for ever."""

from __future__ import annotations

from typing import Any, cast

import anyio
import httpx
import pytest
from fastapi import Depends, FastAPI

from station.showing import Showing
from station.web import live


class Shown:
    count = 0

    def document(self) -> dict[str, Any]:
        return {"station": "aoi-1"}


def test_a_watcher_is_asked_to_come_again_after_a_while_and_makes_room_until_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "WATCH_S", 0.3)
    monkeypatch.setattr(live, "MAX_WATCHERS", 1)
    api = FastAPI()
    live.add_page(
        api, showing=cast("Showing", Shown()), may=lambda _scope: Depends(lambda: None), stopping=lambda: False
    )

    async def watch() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://station") as client:
            return (await client.get("/live")).text

    for _ in range(3):  # each takes the only place, and leaves it
        said = anyio.run(watch)
        assert said.startswith("retry: 500\n\n")
        assert 'data: {"station":"aoi-1"}\n\n' in said
