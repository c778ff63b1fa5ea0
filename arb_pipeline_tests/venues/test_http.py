import asyncio
from collections.abc import Callable, Generator

import httpx
import pytest

from arb_pipeline.venues.http import HttpStatusError, RestClient, TransientHttpError

Handler = Callable[[httpx.Request], httpx.Response]


class Pauses(list[float]):
    """What the client asked to sleep, without sleeping."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    taken = Pauses()
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        taken.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return taken


def client(handler: Handler, *, retries: int = 3, auth: httpx.Auth | None = None, rate: float = 1e9) -> RestClient:
    return RestClient(
        "http://venue.test/api/",
        retries=retries,
        requests_per_s=rate,
        auth=auth,
        transport=httpx.MockTransport(handler),
    )


def answers(*responses: httpx.Response | Exception) -> tuple[Handler, list[httpx.Request]]:
    """A handler that gives these answers in turn, the last one for ever."""
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        answer = responses[min(len(requests), len(responses) - 1)]
        requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return handle, requests


async def test_get_decodes_and_puts_the_query_together() -> None:
    handle, requests = answers(httpx.Response(200, json={"ok": [1, None]}))
    async with client(handle) as rest:
        assert await rest.get("/events", {"limit": 2, "nested": True, "cursor": None}) == {"ok": [1, None]}
        assert await rest.get_bytes("/books", [("tickers", "A"), ("tickers", "B")]) == b'{"ok":[1,null]}'
    assert str(requests[0].url) == "http://venue.test/api/events?limit=2&nested=true"
    assert str(requests[1].url) == "http://venue.test/api/books?tickers=A&tickers=B"
    assert requests[0].headers["accept-language"] == "en"
    assert rest.requests == 2
    assert rest.retries == 0


async def test_post_sends_json() -> None:
    handle, requests = answers(httpx.Response(200, json=[]))
    async with client(handle) as rest:
        assert await rest.post("/books", [{"token_id": "1"}]) == []
    assert requests[0].read() == b'[{"token_id":"1"}]'


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_transient_answers_are_tried_again(status: int, pauses: Pauses) -> None:
    handle, requests = answers(httpx.Response(status, text="busy"), httpx.Response(200, json=1))
    async with client(handle) as rest:
        assert await rest.get("/x") == 1
    assert len(requests) == 2
    assert rest.retries == 1
    assert 0.5 <= max(pauses) <= 1.0


@pytest.mark.parametrize("body", [b"<html>Just a moment</html>", b'{"events": [', b"", b'{"a":1} trailing'])
async def test_a_success_that_is_not_json_is_tried_again(body: bytes, pauses: Pauses) -> None:
    handle, requests = answers(httpx.Response(200, content=body), httpx.Response(200, json={"a": 1}))
    async with client(handle) as rest:
        assert await rest.get("/x") == {"a": 1}
    assert len(requests) == 2


@pytest.mark.parametrize("body", [b"null", b"-1", b"true", b' {"a": 1}\n', b'"x"'])
async def test_any_json_value_is_an_answer(body: bytes) -> None:
    handle, requests = answers(httpx.Response(200, content=body))
    async with client(handle) as rest:
        assert await rest.get_bytes("/x") == body
    assert len(requests) == 1


async def test_a_broken_connection_is_tried_again(pauses: Pauses) -> None:
    handle, _ = answers(httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.Response(200, json=1))
    async with client(handle) as rest:
        assert await rest.get("/x") == 1
    assert rest.retries == 2


async def test_when_tries_are_used_up_the_last_error_is_told(pauses: Pauses) -> None:
    handle, requests = answers(httpx.Response(503, text="down for maintenance"))
    async with client(handle, retries=2) as rest:
        with pytest.raises(TransientHttpError, match=r"GET http://venue\.test/api/x answered 503: 'down") as caught:
            await rest.get("/x")
    assert len(requests) == 3
    assert caught.value.status == 503

    handle, _ = answers(httpx.ConnectError("refused"))
    async with client(handle, retries=1) as rest:
        with pytest.raises(httpx.ConnectError):
            await rest.get("/x")


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_other_errors_are_not_tried_again(status: int) -> None:
    handle, requests = answers(httpx.Response(status, json={"error": {"code": "not_found"}}))
    async with client(handle) as rest:
        with pytest.raises(HttpStatusError) as caught:
            await rest.get("/x")
    assert len(requests) == 1
    assert caught.value.status == status
    assert "not_found" in caught.value.body


@pytest.mark.parametrize(
    ("header", "at_least", "at_most"),
    [("7", 7.0, 7.0), ("0", 0.5, 1.0), ("999999", 60.0, 60.0), ("nan", 0.5, 1.0), ("-3", 0.5, 1.0), ("soon", 0.5, 1.0)],
)
async def test_retry_after_is_honoured_within_reason(
    header: str, at_least: float, at_most: float, pauses: Pauses
) -> None:
    handle, _ = answers(httpx.Response(429, headers={"retry-after": header}), httpx.Response(200, json=1))
    async with client(handle) as rest:
        await rest.get("/x")
    assert at_least <= max(pauses) <= at_most


async def test_requests_are_spaced(pauses: Pauses) -> None:
    handle, _ = answers(httpx.Response(200, json=1))
    async with client(handle, rate=0.01) as rest:
        await asyncio.gather(*(rest.get("/x") for _ in range(3)))
    waits = sorted(pause for pause in pauses if pause > 0)
    assert len(waits) == 2
    assert 99 < waits[0] <= 100
    assert 199 < waits[1] <= 200


class _Signing(httpx.Auth):
    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["signature"] = "secret"
        yield request


async def test_a_signature_is_never_carried_along_a_redirect() -> None:
    hosts: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        if request.url.host == "venue.test":
            return httpx.Response(302, headers={"location": "http://elsewhere.test/x"})
        return httpx.Response(200, json=1)

    async with client(handle, auth=_Signing()) as rest:
        with pytest.raises(HttpStatusError, match="302"):
            await rest.get("/x")
    assert hosts == ["venue.test"]
    async with client(handle) as rest:
        assert await rest.get("/x") == 1
