"""The client for asyncio, used like the one for threads, so that one test is for both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

from geolookup.client import AsyncClient


class Blocking:
    """An `AsyncClient` that is used like a `Client`: each verb runs its event loop."""

    def __init__(self, target: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(target, **options)

    def __getattr__(self, verb: str) -> Any:
        if isinstance(getattr(AsyncClient, verb, None), property):
            return self._runner.run(_awaited(getattr(self._client, verb)))
        method = getattr(self._client, verb)

        def call(*arguments: Any, **named: Any) -> Any:
            return self._runner.run(method(*arguments, **named))

        return call

    def classify_many(self, *arguments: Any, **named: Any) -> Iterator[Any]:
        results = self._client.classify_many(*arguments, **named)

        async def one() -> Any:
            return await anext(results, None)

        while (result := self._runner.run(one())) is not None:
            yield result

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
