"""Work off the event loop: a bounded number of places, a few threads, a time limit."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from handgraph.server.limits import Refused

T = TypeVar("T")
RETRY_AFTER_S = 2


class Gone(Exception):
    """The client has closed the connection: nobody waits for this answer."""


class Deadline:
    """When a job has to be done. Long work asks `check` between its steps, since no thread can be stopped."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._end = seconds, time.monotonic() + seconds
        self._given_up = threading.Event()

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._given_up.set()

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for the job any more."""
        return self._given_up.is_set()

    @property
    def nearly_over(self) -> bool:
        """Whether so little time is left that what there is should be answered now."""
        return time.monotonic() > self._end - 0.2 * self._seconds

    def check(self) -> None:
        """Raise Refused when the time is over or nobody waits."""
        if self.given_up or time.monotonic() > self._end:
            raise self.missed()

    def missed(self) -> Refused:
        """What to answer then."""
        return Refused(
            503, f"not done within {self._seconds:g} s; send less at once, or come again", RETRY_AFTER_S
        )


class Jobs:
    """`places` requests at a time, `workers` of them being worked on. One event loop uses it."""

    def __init__(self, workers: int, places: int) -> None:
        self.workers, self.places, self.taken = workers, places, 0
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="handgraph-worker")

    async def in_each_thread(self, work: Callable[[], None]) -> None:
        """Do something once in every worker thread."""
        together, loop = threading.Barrier(self.workers), asyncio.get_running_loop()

        def once() -> None:
            together.wait()  # so that no thread takes two
            work()

        await asyncio.gather(*(loop.run_in_executor(self._pool, once) for _ in range(self.workers)))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place, from before the upload is read. Raises Refused (503) when all are taken."""
        if self.taken >= self.places:
            raise Refused(
                503, f"busy: all {self.places} places are taken; come again in a moment", RETRY_AFTER_S
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def run(
        self, work: Callable[[Deadline], T], seconds: float, gone: Callable[[], Awaitable[Any]]
    ) -> T:
        """The result of `work(deadline)`, done in a worker thread. `gone` returns when the client has left.

        Raises what `work` raises, Refused (503) when the time is over, Gone when nobody waits any more. Work
        that was given up keeps a place until it has really ended.
        """
        deadline = Deadline(seconds)
        running: Future[T] = self._pool.submit(work, deadline)
        result, left = asyncio.wrap_future(running), asyncio.ensure_future(gone())
        try:
            await asyncio.wait({result, left}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            raise Gone if left.done() else deadline.missed()
        finally:
            left.cancel()
            if not result.done():
                deadline.give_up()
                self._abandon(running, result)

    def _abandon(self, running: "Future[T]", result: "asyncio.Future[T]") -> None:
        """Keep a place for a thread that still works on something nobody waits for."""
        result.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, so not reported
        if running.cancel():
            return
        self.taken += 1
        loop = asyncio.get_running_loop()

        def free() -> None:
            self.taken -= 1

        def ended(_: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(free)

        running.add_done_callback(ended)

    def close(self) -> None:
        """Wait for the threads; what has not begun does not begin any more."""
        self._pool.shutdown(wait=True, cancel_futures=True)
