"""Work in a few threads, its results in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_order(
    tasks: Iterable[Task], do: Callable[[Task], Result], *, threads: int, ahead: int
) -> Generator[tuple[Task, Result], None, None]:
    """Each task with what it comes to; no more than `ahead` are begun before they are asked for.

    Tasks are taken in the caller's thread. Raises what a task raises; those that follow it and have
    not begun are left undone.
    """
    waiting = iter(tasks)
    running: list[tuple[Task, Future[Result]]] = []
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                for task in itertools.islice(waiting, ahead - len(running)):
                    running.append((task, pool.submit(do, task)))
                if not running:
                    return
                task, result = running.pop(0)
                yield task, result.result()
        finally:
            for _, each in running:
                each.cancel()
