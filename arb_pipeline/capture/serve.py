"""Running a coroutine until a signal asks it to stop."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

__all__ = ["run_until_signalled"]

T = TypeVar("T")


def run_until_signalled(make: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    """Run ``make(stop)`` to its end; SIGINT and SIGTERM set ``stop``, so that it can finish its work.

    A second signal raises KeyboardInterrupt, whatever the loop is doing. Outside the main thread signals cannot be
    had, and ``stop`` is never set from here.
    """

    async def main() -> T:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        asked = False

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            nonlocal asked
            if asked:
                raise KeyboardInterrupt
            asked = True
            loop.call_soon_threadsafe(stop.set)

        if threading.current_thread() is not threading.main_thread():
            return await make(stop)
        previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in previous:
            # The loop's own handler makes a signal wake it up, which one that comes just before it sleeps would not.
            loop.add_signal_handler(number, lambda: None)
            signal.signal(number, on_signal)
        try:
            return await make(stop)
        finally:
            for number, handler in previous.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    return asyncio.run(main())
