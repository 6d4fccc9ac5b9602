"""The study's mirror on a database server: for Optuna's dashboards, and never in the search's way.

The mask database is the truth and nothing reads the mirror back, so a server that is slow or away
holds nobody up: a thread of its own writes, what could not be written waits in memory, and what a
killed driver has not written, the next run does.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ticketsweep.errors import SweepError

if TYPE_CHECKING:  # where there is no server, nothing waits for it to be imported
    from sqlalchemy.engine import URL

IDENTITY = "trial_id"
"""The user attribute that tells which trial of the mask database a trial of the study stands for.

It is the last that is set of a suggestion, which is then mirrored.
"""

OPTION, VARIABLE = "--optuna-storage", "TICKETSWEEP_OPTUNA_STORAGE"
_SERVERS = ("postgresql", "mysql")
_SECONDS_TO_CONNECT = 10
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between two attempts at a server that is away
_SECONDS_TO_CLOSE = 30.0  # for what is left to be written when the sweep ends
_OWNER = "ticketsweep_storage"  # the study's attribute that tells whose it is …
_PLACE = "ticketsweep_storage_place"  # … and where that was when the study was made


def optuna_database(option: str | None) -> URL | None:
    """The URL that the option names, else the variable; None without either.

    The variable is taken away, so that no process that is started from here inherits a password.
    Raises SweepError as `check_url` does.
    """
    inherited = os.environ.pop(VARIABLE, None)
    if option is not None:
        return check_url(option, given_by=OPTION)
    return check_url(inherited, given_by=VARIABLE) if inherited else None


def check_url(text: str, *, given_by: str) -> URL:
    """A server's URL.

    Parameters
    ----------
    given_by: `OPTION`, which every user of the machine can read, or `VARIABLE`.

    Raises SweepError, which does not show the URL's password.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    rule = f"{given_by} must be a database server's URL, such as postgresql://USER@HOST/DATABASE"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise SweepError(f"{rule} (what was given is none)") from None
    shown = url.render_as_string(hide_password=True)
    kind = url.get_backend_name()
    if kind == "sqlite":
        raise SweepError(
            f"{rule}, got {shown!r} (SQLite is no server; without {OPTION} the study's journal is "
            "a file in the storage, which dashboards read as well)"
        )
    if kind not in _SERVERS:
        raise SweepError(f"{rule}, got one of {kind!r} (known: {', '.join(_SERVERS)})")
    if not url.host or not url.database:
        missing = "host" if not url.host else "database"
        raise SweepError(f"{rule}, got {shown!r} (it names no {missing})")
    if given_by == OPTION and (url.password is not None or "password" in url.query):
        raise SweepError(
            f"{OPTION} must not hold a password, since every user of this machine can read it in "
            f"the list of processes (put the URL into ${VARIABLE}, or the password into ~/.pgpass)"
        )
    return url


class Server:
    """A database that has answered, and the study in it that is this sweep's.

    Parameters
    ----------
    url: of the database.
    sweep: the study's name.
    owner: identity of the storage whose sweep it is. A study of the same name that is another's is
        left alone.
    place: where that storage lies, as the user knows it.
    objectives: metric -> `max` or `min`.

    Raises SweepError if there is no such database, or its study of that name is not this sweep's.
    """

    def __init__(
        self,
        url: URL,
        *,
        sweep: str,
        owner: str,
        place: str,
        objectives: Mapping[str, str],
    ) -> None:
        from sqlalchemy.exc import NoSuchModuleError

        self._secret = url.password
        self.shown = url.render_as_string(hide_password=True).partition("?")[0]
        rule = f"the Optuna database {self.shown} cannot be used"
        try:
            self._database = _connect(url)
            try:
                self._study_id = self._open(sweep, owner, place, objectives)
            except BaseException:
                self.disconnect()
                raise
        except (ImportError, NoSuchModuleError):
            raise SweepError(
                f"{rule}: its driver {url.get_driver_name()} is not installed "
                "(`pip install 'ticketsweep[postgresql]'`)"
            ) from None
        except SweepError:
            raise
        except Exception as error:
            raise SweepError(
                f"{rule}: {self.said(error)} (check its address, user and password, or leave "
                f"{OPTION} out)"
            ) from None

    def _open(self, sweep: str, owner: str, place: str, objectives: Mapping[str, str]) -> int:
        database, directions = self._database, directions_of(objectives)
        found = next((s for s in database.get_all_studies() if s.study_name == sweep), None)
        if found is None:
            study_id = database.create_new_study(directions, sweep)
            database.set_study_user_attr(study_id, _OWNER, owner)
            database.set_study_user_attr(study_id, _PLACE, place)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study = optuna.load_study(study_name=sweep, storage=database)
                study.set_metric_names(list(objectives))
            return study_id
        if found.user_attrs.get(_OWNER) != owner or found.directions != directions:
            whose = found.user_attrs.get(_PLACE)
            of = f"that of the storage {whose}" if whose else "no sweep's"
            raise SweepError(
                f"the Optuna database {self.shown} has a study {sweep!r}, and it is {of} (give the "
                "run another --name, or delete that study with `optuna delete-study`)"
            )
        return found._study_id

    def trials(self) -> list[FrozenTrial]:
        """All that the study has."""
        return self._database.get_all_trials(self._study_id, deepcopy=False)

    def add(self, trial: FrozenTrial) -> int:
        """Write a trial; returns the database's own number for it."""
        return self._database.create_new_trial(self._study_id, template_trial=trial)

    def end(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        """Tell how a running trial has ended; nothing for one that has been told of already."""
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._database.set_trial_state_values(number, state, values)

    def disconnect(self) -> None:
        """Close the connection; what follows begins with a new one. Raises nothing."""
        with contextlib.suppress(Exception):  # of a session whose connection has broken
            self._database.remove_session()
        self._database.engine.dispose()

    def said(self, error: BaseException) -> str:
        """What an error says, on one line, without the password if it should be in there."""
        from sqlalchemy.exc import DBAPIError

        while isinstance(error.__cause__, Exception) and not isinstance(error, DBAPIError):
            error = error.__cause__
        source = error.orig if isinstance(error, DBAPIError) and error.orig else error
        text = " ".join(str(source).split()) or type(source).__name__
        return (text.replace(self._secret, "…") if self._secret else text)[:300]


def _connect(url: URL) -> RDBStorage:
    pause = {"connect_timeout": _SECONDS_TO_CONNECT}
    # One connection, looked at before each use: the thread that writes is the only user.
    engine: dict[str, Any] = {"pool_size": 1, "pool_pre_ping": True, "connect_args": pause}
    text = url.render_as_string(hide_password=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RDBStorage(text, engine_kwargs=engine)


def directions_of(objectives: Mapping[str, str]) -> list[StudyDirection]:
    """Optuna's words for `max` and `min`, in the order of the objectives."""
    ways = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    return [ways[way] for way in objectives.values()]


class MirroredStudies(InMemoryStorage):
    """Optuna's storage in memory, which hands every trial that is suggested or ends to a mirror."""

    def __init__(self, mirror: Mirror) -> None:
        super().__init__()
        self._mirror = mirror

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna's; with a template it is a stored trial."""
        number = super().create_new_trial(study_id, template_trial)
        if template_trial is not None and template_trial.state.is_finished():
            self._mirror.put(self.get_trial(number))
        return number

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        super().set_trial_user_attr(trial_id, key, value)
        if key == IDENTITY:
            self._mirror.put(self.get_trial(trial_id))

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's."""
        done = super().set_trial_state_values(trial_id, state, values)
        if state.is_finished():
            self._mirror.put(self.get_trial(trial_id))
        return done


class Mirror:
    """Writes trials to a server, in the order in which they began, from a thread of its own.

    Parameters
    ----------
    warn: told, once for each time that the server is away, what it says.
    """

    def __init__(self, server: Server, *, warn: Callable[[str], None]) -> None:
        self._server, self._warn = server, warn
        self._waiting: dict[int, FrozenTrial] = {}
        self._running: dict[int, int] = {}  # the study's number -> the database's
        self._there: dict[str, list[FrozenTrial]] | None = None  # of no known number, by identity
        self._changed = threading.Condition()
        self._is_restored = self._is_tidy = self._is_closing = self._is_away = False
        self._thread = threading.Thread(target=self._work, name="optuna", daemon=True)
        self._thread.start()

    def put(self, trial: FrozenTrial) -> None:
        """Write this trial as it is now, some time soon. Does not wait."""
        with self._changed:
            self._waiting[trial.number] = trial  # in place of what it was before
            self._changed.notify()

    def restored(self) -> None:
        """What was stored has been put: what the server has running beside it was cut off."""
        with self._changed:
            self._is_restored = True
            self._changed.notify()

    def close(self) -> None:
        """Wait, for a bounded time, until all is written."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(_SECONDS_TO_CLOSE)
        if not self._thread.is_alive():
            self._server.disconnect()
        if self._waiting:
            self._warn(
                f"{len(self._waiting)} trials are not in the Optuna database {self._server.shown} "
                "as they are stored: the same command again mends that"
            )

    def _work(self) -> None:
        pause = _FIRST_PAUSE
        while self._has_work():
            is_last_attempt = self._is_closing
            try:
                self._write_next()
            except Exception as error:  # the mirror must never end a sweep
                self._there = None  # whether the last trial was written is not known
                self._server.disconnect()
                self._say_that_it_is_away(error)
                if is_last_attempt:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closing, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                pause, self._is_away = _FIRST_PAUSE, False

    def _has_work(self) -> bool:
        """Wait for something to be written; False once there will be no more."""
        with self._changed:
            while not (self._waiting or (self._is_restored and not self._is_tidy)):
                if self._is_closing:
                    return False
                self._changed.wait()
        return True

    def _write_next(self) -> None:
        if self._there is None:
            self._there = self._read()
        with self._changed:
            number = next(iter(self._waiting), None)
            trial = None if number is None else self._waiting[number]
        if trial is None:
            self._fail_what_was_cut_off(self._there)
            return
        self._write(trial, self._there.get(str(trial.user_attrs.get(IDENTITY)), []))
        with self._changed:
            if self._waiting[trial.number] is trial:  # and has not ended meanwhile
                del self._waiting[trial.number]

    def _read(self) -> dict[str, list[FrozenTrial]]:
        known = set(self._running.values())
        there: dict[str, list[FrozenTrial]] = {}
        for trial in self._server.trials():
            if trial._trial_id not in known:
                there.setdefault(str(trial.user_attrs.get(IDENTITY)), []).append(trial)
        return there

    def _write(self, trial: FrozenTrial, twins: list[FrozenTrial]) -> None:
        """Write a trial, unless one of its twins on the server is it, from now on or already."""
        number = self._running.get(trial.number)
        if number is None:
            twin = next((twin for twin in twins if _alike(twin, trial)), None)
            if twin is not None and trial.state.is_finished():
                twins.remove(twin)
                return
            twin = next((twin for twin in twins if twin.state == TrialState.RUNNING), None)
            if twin is not None:
                twins.remove(twin)
                number = twin._trial_id
        if number is None:
            number = self._server.add(trial)
        elif trial.state.is_finished():
            self._server.end(number, trial.state, trial.values)
        if trial.state.is_finished():
            self._running.pop(trial.number, None)
        else:
            self._running[trial.number] = number

    def _fail_what_was_cut_off(self, there: Mapping[str, list[FrozenTrial]]) -> None:
        for trials in there.values():
            for trial in trials:
                if trial.state == TrialState.RUNNING:
                    self._server.end(trial._trial_id, TrialState.FAIL, None)
        self._is_tidy = True

    def _say_that_it_is_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            self._warn(
                f"the Optuna database {self._server.shown} cannot be written to: "
                f"{self._server.said(error)}; the sweep goes on, and what is missing there follows"
            )


def _alike(one: FrozenTrial, other: FrozenTrial) -> bool:
    return one.state == other.state and one.values == other.values
