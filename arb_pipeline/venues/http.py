"""A polite REST client: httpx with a rate limit, retries with jitter, ``Retry-After``, and errors that explain."""

import asyncio
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from functools import cache
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential, wait_random

from arb_pipeline.errors import ArbError

__all__ = ["HttpStatusError", "RestClient", "TransientHttpError"]

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_RETRY_AFTER_S = 60.0
_BODY_EXCERPT = 300

Params = Mapping[str, Any] | Sequence[tuple[str, Any]]


@cache
def _tls() -> ssl.SSLContext:
    """One for all clients: to load the certificates takes longer than a running capture may stand still."""
    return httpx.create_ssl_context()


class HttpStatusError(ArbError):
    """A request was answered with an error; ``status`` is the HTTP status, ``body`` the beginning of the answer."""

    def __init__(self, method: str, url: str, status: int, body: str) -> None:
        super().__init__(f"{method} {url} answered {status}: {body[:_BODY_EXCERPT]!r}")
        self.status = status
        self.body = body


class TransientHttpError(HttpStatusError):
    """An answer worth another try (429, 5xx, HTML in place of JSON)."""

    def __init__(self, method: str, url: str, status: int, body: str, retry_after_s: float | None) -> None:
        super().__init__(method, url, status, body)
        self.retry_after_s = retry_after_s


class RestClient:
    """One venue's REST API.

    Every request waits for its slot (``requests_per_s``), is tried again with exponential jittered back-off on
    429, 5xx, time-outs, broken connections and non-JSON answers, and honours ``Retry-After``.

    Redirects are followed, but never with a signature.

    Attributes:
        requests, retries: counters of what was sent, for metadata.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 20.0,
        retries: int = 6,
        requests_per_s: float = 8.0,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
        max_wait_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.requests = 0
        self.retries = 0
        self._interval = 1.0 / requests_per_s
        self._next_slot = 0.0
        self._attempts = retries + 1
        self._backoff = wait_exponential(multiplier=0.5, max=max_wait_s) + wait_random(0, 0.5)
        self._client = httpx.AsyncClient(
            timeout=timeout_s,
            auth=auth,
            headers={"accept": "application/json", "accept-language": "en", **(headers or {})},
            # httpx would carry a request's signature along to wherever a redirect points.
            follow_redirects=auth is None,
            transport=transport,
            verify=_tls(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, path: str, params: Params | None = None) -> Any:
        """GET a path below the base URL (or an absolute URL) and decode its JSON.

        Raises:
            HttpStatusError: on an error answer that another try would not change, or when tries are used up.
            httpx.TransportError: when the last try did not get an answer at all.
        """
        return msgspec.json.decode(await self.get_bytes(path, params))

    async def get_bytes(self, path: str, params: Params | None = None) -> bytes:
        """GET and return the body, known to be well-formed JSON; raises as :meth:`get` does."""
        return await self._request("GET", path, params=params)

    async def post(self, path: str, json: Any) -> Any:
        """POST a JSON body and decode the JSON answer; the call must be idempotent, since it may be repeated."""
        return msgspec.json.decode(await self._request("POST", path, json=json))

    async def _request(self, method: str, path: str, params: Params | None = None, json: Any = None) -> bytes:
        url = path if "://" in path else self.base_url + path
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            wait=self._wait,
            retry=retry_if_exception_type((TransientHttpError, httpx.TransportError)),
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    self.retries += 1
                return await self._once(method, url, params, json)
        raise AssertionError("unreachable: tenacity re-raises the last error")

    async def _once(self, method: str, url: str, params: Params | None, json: Any) -> bytes:
        await self._slot()
        self.requests += 1
        response = await self._client.request(method, url, params=_query(params), json=json)
        body = response.content
        if response.status_code in _TRANSIENT:
            raise TransientHttpError(method, url, response.status_code, response.text, _retry_after(response))
        if response.status_code >= 300:
            raise HttpStatusError(method, url, response.status_code, response.text)
        try:
            msgspec.json.decode(body, type=msgspec.Raw)
        except msgspec.DecodeError:
            # A CDN's HTML page or half an answer with status 200: as good as a 5xx.
            raise TransientHttpError(method, url, response.status_code, response.text, None) from None
        return body

    async def _slot(self) -> None:
        now = time.monotonic()
        slot = max(now, self._next_slot)
        self._next_slot = slot + self._interval
        if slot > now:
            await asyncio.sleep(slot - now)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        pause = self._backoff(state)
        if isinstance(error, TransientHttpError) and error.retry_after_s is not None:
            return max(pause, error.retry_after_s)
        return pause


def _query(params: Params | None) -> Any:
    if params is None:
        return None
    pairs = params.items() if isinstance(params, Mapping) else params
    return [
        (key, ("true" if value else "false") if isinstance(value, bool) else value)
        for key, value in pairs
        if value is not None
    ]


def _retry_after(response: httpx.Response) -> float | None:
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    # "nan" is a float too, and no time to sleep for.
    return None if math.isnan(seconds) else min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)
