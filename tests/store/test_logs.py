from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store import logs
from ticketsweep.store.compaction import compact
from ticketsweep.store.logs import (
    ENDED,
    HEAD_BYTES,
    TAIL_BYTES,
    add_note,
    is_ended,
    log_files,
    news,
    read_log,
    trial_log,
)
from ticketsweep.store.redaction import Redaction
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import remove_leftovers, write_trial

OWN = logging.getLogger("ticketsweep.trial")


def text_of(storage, trial_id: str = "t0") -> str:
    return "".join(read_log(storage, f) for f in log_files(storage) if f.trial_id == trial_id)


def test_a_log_has_our_news_others_warnings_and_how_it_ended(storage):
    others = logging.getLogger("some.library")
    others.setLevel(logging.INFO)
    with trial_log(storage, "s", "t0") as log:
        OWN.info("step %d", 3)
        OWN.debug("a detail")
        others.info("its own news")
        others.warning("odd")
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            with pytest.warns(UserWarning, match="strange"):
                warnings.warn("strange", stacklevel=1)
        log.outcome = "complete"
    OWN.info("after it")
    lines = [line.split(" ", 1)[1] for line in text_of(storage).splitlines()]
    assert lines == ["step 3", "warning: some.library: odd", f"{ENDED}complete"]


def test_a_python_warning_is_logged_and_shown_as_ever(storage):
    shown = []
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *_: shown.append(str(message))
        with trial_log(storage, "s", "t0"):
            warnings.warn("strange", stacklevel=1)
        warnings.warn("afterwards", stacklevel=1)
    assert shown == ["strange", "afterwards"]
    assert "warning: UserWarning: strange (" in text_of(storage)
    assert "afterwards" not in text_of(storage)


def test_what_ends_an_attempt_is_there_with_its_traceback(storage):
    def fault() -> None:
        raise RuntimeError("out of luck\nand more")

    with pytest.raises(RuntimeError), trial_log(storage, "s", "t0"):
        fault()
    text = text_of(storage)
    assert "in fault" in text
    assert "RuntimeError: out of luck\nand more" in text
    assert text.endswith(f"{ENDED}failed: RuntimeError: out of luck and more\n")
    with pytest.raises(StorageError), trial_log(storage, "s", "t1"):
        raise StorageError("no space left")
    assert "Traceback" not in text_of(storage, "t1")


def test_attempts_and_notes_come_one_after_the_other(storage):
    with trial_log(storage, "s", "t0"):
        OWN.info("first")
    add_note(storage, "s", "t0", "the worker has died")
    with trial_log(storage, "s", "t0") as log:
        OWN.info("second")
        log.outcome = "complete"
    with trial_log(storage, "s", "t01"):
        OWN.info("of another trial")
    said = [line.split(" ", 1)[1] for line in text_of(storage).splitlines() if line]
    assert said[:2] == ["first", f"{ENDED}interrupted"]
    assert said[-2:] == ["second", f"{ENDED}complete"]
    assert len(log_files(storage, "s")) == 4
    assert log_files(storage, "another") == []


def test_of_a_long_log_head_and_tail_are_kept(storage):
    with trial_log(storage, "s", "t0"):
        for number in range(3000):
            OWN.info("line %d %s", number, "." * 80)
        OWN.info("x" * 100_000)
    text = text_of(storage)
    assert len(text) <= HEAD_BYTES + TAIL_BYTES + 100
    assert "line 0 ." in text
    assert "line 2999 ." in text
    assert "lines left out" in text


def test_logs_are_no_part_of_the_database(storage, make_trial):
    write_trial(storage, "s", make_trial())
    with trial_log(storage, "s", "t0"):
        OWN.info("here")
    before = text_of(storage)
    compact(storage, "s", report=lambda done, total: None)
    found = verify(storage, report=lambda done, total: None)
    assert (found.sound, found.leftovers) == (True, ())
    assert remove_leftovers(storage, "s") == 0
    assert text_of(storage) == before


def test_a_log_that_cannot_be_written_stops_nothing(storage, monkeypatch):
    monkeypatch.setattr(logs, "_SECONDS", 0.0)
    Path(storage.logs_folder()).write_text("a file in the way")
    with trial_log(storage, "s", "t0"):
        OWN.info("here")


def test_only_what_is_new_is_news():
    assert news("", "a\nb\n") == "a\nb\n"
    assert news("a\nb\n", "a\nb\nc\n") == "c\n"
    assert news("a\nb\n", "a\n… 1 lines left out …\nb\nc\n") == "c\n"
    assert news("a\n", "a\n") == ""


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        (f"2026-01-01T00:00:00Z {ENDED}complete\n", True),
        ("2026-01-01T00:00:00Z step 3\n", False),
        (f"2026-01-01T00:00:00Z {ENDED}interrupted\n2026-01-01T00:00:00Z step 3\n", False),
        ("", False),
    ],
)
def test_the_last_line_says_whether_an_attempt_has_ended(text, ended):
    assert is_ended(text) == ended


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("at s3://key:secret/x@bucket/path", "at s3://…@bucket/path"),
        ("Authorization: Bearer abcdefghijkl123", "Authorization: Bearer …"),
        ("api_key=abcdefghijkl123 refused", "api_key=… refused"),
        ("postgresql://me:a@b@host/db", "postgresql://…@host/db"),
        ("HF_TOKEN=abcdefghijkl123", "HF_TOKEN=…"),
        ("step 3 of 100: loss 2.37", "step 3 of 100: loss 2.37"),
        ("tcp://127.0.0.1:80 is a token", "tcp://127.0.0.1:80 is a token"),
    ],
)
def test_secrets_are_left_out(text, left):
    assert Redaction()(text) == left
