"""Requests made up from the API's own description: whatever comes, no answer is a failure of ours."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from station.health import Health
from station.remote import Commands
from station.web.api import create_api
from tests.web.ports import Served
from tests.web.test_health_port import GAUGES, vitals_of

GUARDED = frozenset({"/predict", "/predict-image", "/token", "/command/{name}"})
KNOWN = frozenset({200, 204, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 503, 504})


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The whole API: health, commands, and the inspection API beside them."""
    from station.metrics import Metrics

    health = Health()
    metrics = Metrics(version="1", model="m", read=lambda: GAUGES)
    api = create_api(
        health=health,
        vitals=lambda: vitals_of(health),
        metrics=metrics.text,
        carry_out=Commands().carry_out,
        answer_s=0.1,
    )
    served = Served(tmp_path_factory.mktemp("fuzzed"), requests_per_minute=0, api=api)
    return schemathesis.openapi.from_asgi("/openapi.json", served.app)


def fuzzed(description: Any, examples: int) -> int:
    """How many answers were looked at."""
    seen = 0
    for found in description.get_all_operations():
        operation = found.ok()

        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def judge(case: Any) -> None:
            nonlocal seen
            seen += 1
            answer = case.call()
            assert answer.status_code in KNOWN, answer.text[:500]
            if answer.status_code >= 400 and case.path in GUARDED:
                assert answer.headers["content-type"][0] in {"application/problem+json", "application/json"}

        judge()
    return seen


def test_no_request_makes_the_station_fail(description: Any) -> None:
    assert fuzzed(description, 25) > 50


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_no_request_of_very_many_makes_the_station_fail(description: Any) -> None:
    assert fuzzed(description, 10_000) > 20_000  # some operations have less than that to ask
