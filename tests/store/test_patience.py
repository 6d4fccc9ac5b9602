"""A storage that comes back is waited for, and one that does not is given up."""

from __future__ import annotations

import time

import pytest

from ticketsweep.errors import MissingStorage, StorageError
from ticketsweep.store import patience
from ticketsweep.store.patience import patiently


class Away:
    """Fails some times; notes how long it was waited for in between."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.left, self.now = times, 0.0
        self.pauses: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(patience.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def __call__(self) -> str:
        self.left -= 1
        if self.left >= 0:
            raise StorageError("it is full")
        return "stored"


def test_pauses_get_longer_up_to_a_limit_and_end_with_the_patience(monkeypatch):
    away = Away(monkeypatch, 9)
    assert patiently(away, seconds=100) == "stored"
    assert away.pauses == [0.5, 1, 2, 4, 8, 15, 15, 15, 15]
    away = Away(monkeypatch, 10**6)
    with pytest.raises(StorageError, match="it is full"):
        patiently(away, seconds=20)
    assert away.now == 20
    assert away.pauses == [0.5, 1, 2, 4, 8, 4.5]


def test_without_patience_it_is_tried_once(monkeypatch):
    away = Away(monkeypatch, 1)
    with pytest.raises(StorageError):
        patiently(away, seconds=0)
    assert away.pauses == []


def test_other_errors_are_not_waited_for(monkeypatch):
    away = Away(monkeypatch, 0)
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 // 0, seconds=100)
    assert away.pauses == []


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (MissingStorage("no such database"), None),
        (StorageError("refused"), PermissionError(13, "Permission denied")),
        (StorageError("refused"), OSError("AWS Error NO_SUCH_BUCKET during PutObject operation")),
        (StorageError("refused"), OSError("AWS Error ACCESS_DENIED during PutObject operation")),
    ],
)
def test_a_fault_that_does_not_pass_is_not_waited_for(monkeypatch, fault, cause):
    away = Away(monkeypatch, 0)

    def refused() -> None:
        raise fault from cause

    with pytest.raises(StorageError):
        patiently(refused, seconds=100)
    assert away.pauses == []


def test_who_waits_is_told_for_what(monkeypatch):
    away, said = Away(monkeypatch, 2), []
    assert patiently(away, seconds=100, on_wait=said.append) == "stored"
    assert said == ["waiting for the storage: it is full"] * 2
