"""The study on a real database server, which is stopped in the middle, and URLs of none."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url

from ticketsweep.config import TrialConfig, trial_id
from ticketsweep.errors import SweepError
from ticketsweep.space import SweepSpec, parse_space
from ticketsweep.store.paths import Storage
from ticketsweep.sweep import server as module
from ticketsweep.sweep.runner import run_sweep
from ticketsweep.sweep.search import Search, Suggestion, mirror_stored
from ticketsweep.sweep.server import (
    IDENTITY,
    VARIABLE,
    Mirror,
    Server,
    check_url,
    optuna_database,
)

PASSWORD = "s3cret-of-the-server"
OBJECTIVES = {"val_accuracy": "max", "sparsity": "max"}
Row = dict[str, Any]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "what was given is none"),
        (f"redis://u:{PASSWORD}@h/d", "got one of 'redis'"),
        ("sqlite:///study.db", "SQLite is no server"),
        (f"postgresql://u:{PASSWORD}@h", "names no database"),
        ("postgresql:///d", "names no host"),
        (f"postgresql://u:{PASSWORD}@h:port/d", "what was given is none"),
    ],
)
def test_a_url_of_no_server_is_refused(text: str, said: str) -> None:
    with pytest.raises(SweepError, match=said) as caught:
        check_url(text, given_by=VARIABLE)
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", [f"u:{PASSWORD}@h/d", f"u@h/d?password={PASSWORD}"])
def test_a_password_comes_by_the_environment_and_goes_no_further(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a process is started from here, it does not inherit it."""
    monkeypatch.setenv(VARIABLE, f"postgresql://{where}")
    with pytest.raises(SweepError, match="must not hold a password") as caught:
        optuna_database(f"postgresql://{where}")
    assert PASSWORD not in str(caught.value)
    monkeypatch.setenv(VARIABLE, f"postgresql://{where}")
    assert optuna_database(None) == make_url(f"postgresql://{where}")
    assert VARIABLE not in os.environ
    assert optuna_database(None) is None
    assert optuna_database("postgresql://u@h/d") == make_url("postgresql://u@h/d")


def test_a_server_that_does_not_answer_is_told_of_before_ray_is_started(
    tmp_path: Path, make_spec: Callable[..., SweepSpec], recorder: Any
) -> None:
    url = make_url(f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/d")
    with pytest.raises(SweepError, match=r"cannot be used: .*refused") as caught:
        run_sweep(
            make_spec(),
            storage=Storage.open(str(tmp_path / "storage"), create=True),
            address=None,
            tracking="off",
            observer=recorder,
            optuna_storage=url,
        )
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any("Ray" in text for text in recorder.of("phase"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class PostgreSQL:
    """A cluster of our own on loopback, which asks for a password."""

    programs: Path
    folder: Path
    port: int

    def call(self, program: str, *arguments: str) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*as_user, str(self.programs / program), "-D", str(self.folder / "data")]
        done = subprocess.run(
            [*command, *arguments],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (program, arguments)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self.call("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self.call("pg_ctl", "-m", "immediate", "stop")

    def url(self, database: str = "postgres", password: str = PASSWORD) -> URL:
        return make_url(f"postgresql://sweeper:{password}@127.0.0.1:{self.port}/{database}")


def _programs() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in places if (place / "pg_ctl").exists()), None)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    (folder / "password").write_text(PASSWORD)
    if os.geteuid() == 0:  # as which PostgreSQL refuses to run
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("there is no user postgres, and PostgreSQL does not run as root")
        for path in (folder, folder / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
    running = PostgreSQL(programs, folder, free_port())
    try:
        password = ["--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
        running.call("initdb", "-U", "sweeper", "--no-sync", *password)
        running.start()
        yield running
    finally:
        with contextlib.suppress(AssertionError):
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.1)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def spec(name: str) -> SweepSpec:
    return parse_space(
        {
            "weight_scale": {"uniform": [1.0, 2.0]},
            "gate": {"l0_strength": {"loguniform": [0.1, 10]}},
            "sweep": {"name": name, "samples": 99, "objectives": OBJECTIVES},
        },
        source="s.yaml",
    )


def row_of(suggestion: Suggestion, number: int, **figures: Any) -> Row:
    config = suggestion.config
    return {
        "trial_id": suggestion.trial_id,
        "status": "complete",
        "config": config.model_dump_json(),
        "search": suggestion.record,
        "started_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        "val_accuracy": 1 / (1 + abs(config.weight_scale - 1.3)),
        "sparsity": config.gate.l0_strength / (1 + config.gate.l0_strength),
        "metrics": [],
    } | figures


class Sweep:
    """A search that is mirrored, and what it has been told."""

    def __init__(self, url: URL, name: str, rows: list[Row]) -> None:
        self.warnings: list[str] = []
        server = Server(url, sweep=name, owner="id", place="/tickets", objectives=OBJECTIVES)
        self.mirror = Mirror(server, warn=self.warnings.append)
        self.search = Search(spec(name), identify=identify, journal=None, mirror=self.mirror)
        self.rows = rows
        self.search.restore(rows)

    def ask(self) -> Suggestion:
        suggestion = self.search.ask()
        assert suggestion is not None
        return suggestion

    def tell(self, suggestion: Suggestion, **figures: Any) -> None:
        self.rows.append(row_of(suggestion, len(self.rows), **figures))
        self.search.tell(self.rows[-1])

    def written(self) -> None:
        until = time.monotonic() + 60
        while self.mirror._waiting and time.monotonic() < until:
            time.sleep(0.02)
        assert not self.mirror._waiting


def identify(config: TrialConfig) -> str:
    return trial_id(config, data_digest="")


@contextlib.contextmanager
def opened(url: URL) -> Iterator[RDBStorage]:
    """The database as dashboards see it."""
    database = RDBStorage(url.render_as_string(hide_password=False))
    yield database
    database.remove_session()
    database.engine.dispose()


def on_the_server(url: URL, name: str) -> list[FrozenTrial]:
    with opened(url) as database:
        study = optuna.load_study(study_name=name, storage=database)
        assert study.metric_names == list(OBJECTIVES)
        return study.trials


def known_as(trials: list[FrozenTrial]) -> Counter[Any]:
    """What tells one trial from another, and how it ended."""
    return Counter(
        (t.user_attrs[IDENTITY], t.state, tuple(t.values or ()), tuple(sorted(t.params.items())))
        for t in trials
    )


@pytest.mark.exhaustive
def test_the_server_has_the_study_and_after_a_killed_driver_nothing_twice(
    postgresql: PostgreSQL,
) -> None:
    url = postgresql.url()
    first = Sweep(url, "killed", [])
    for _ in range(4):
        first.tell(first.ask())
    first.tell(first.ask(), status="failed", val_accuracy=None, sparsity=None)
    finished_unseen, cut_off = first.ask(), first.ask()
    first.written()
    live = first.search._study.get_trials(deepcopy=False)
    assert known_as(on_the_server(url, "killed")) == known_as(live)

    # The driver is killed: one of its trials has been stored all the same, the other is gone.
    rows = [*first.rows, row_of(finished_unseen, 90)]
    second = Sweep(url, "killed", rows)
    second.tell(second.ask())
    left_running = second.ask()
    second.search.close()
    trials = on_the_server(url, "killed")
    states = {t.user_attrs[IDENTITY]: t.state for t in trials}
    assert len(trials) == len(states) == 9
    assert states[finished_unseen.trial_id] == TrialState.COMPLETE
    assert states[cut_off.trial_id] == states[left_running.trial_id] == TrialState.FAIL
    assert Counter(states.values())[TrialState.COMPLETE] == 6
    assert second.warnings == []

    third = Server(url, sweep="killed", owner="id", place="/tickets", objectives=OBJECTIVES)
    mirror_stored(Mirror(third, warn=second.warnings.append), second.rows, OBJECTIVES)
    assert known_as(on_the_server(url, "killed")) == known_as(trials)


@pytest.mark.exhaustive
def test_a_server_that_goes_away_holds_nobody_up_and_gets_everything_once(
    postgresql: PostgreSQL,
) -> None:
    url = postgresql.url()
    sweep = Sweep(url, "away", [])
    sweep.tell(sweep.ask())
    running = sweep.ask()
    sweep.written()
    postgresql.stop()
    began = time.monotonic()
    sweep.tell(running)
    for _ in range(5):
        sweep.tell(sweep.ask())
    assert time.monotonic() - began < 10
    until = time.monotonic() + 30
    while not sweep.warnings and time.monotonic() < until:
        time.sleep(0.02)
    postgresql.start()
    sweep.tell(sweep.ask())
    sweep.search.close()
    (warning,) = sweep.warnings
    assert "cannot be written to" in warning
    assert PASSWORD not in warning
    live = sweep.search._study.get_trials(deepcopy=False)
    assert known_as(on_the_server(url, "away")) == known_as(live)
    assert {trial.state for trial in live} == {TrialState.COMPLETE}


@pytest.mark.exhaustive
def test_a_sweep_ends_though_the_server_is_gone(postgresql: PostgreSQL) -> None:
    url = postgresql.url()
    sweep = Sweep(url, "gone", [])
    sweep.written()
    postgresql.stop()
    try:
        sweep.tell(sweep.ask())
        began = time.monotonic()
        sweep.search.close()
        assert time.monotonic() - began < 30
        assert "1 trials are not in the Optuna database" in sweep.warnings[-1]
    finally:
        postgresql.start()


@pytest.mark.exhaustive
def test_the_study_of_another_is_left_alone(postgresql: PostgreSQL) -> None:
    url = postgresql.url()
    with opened(url) as database:
        optuna.create_study(study_name="theirs", storage=database)
    Server(url, sweep="ours", owner="id", place="/tickets", objectives=OBJECTIVES).disconnect()
    for name, owner in (("theirs", "id"), ("ours", "another")):
        with pytest.raises(SweepError, match="give the run another --name"):
            Server(url, sweep=name, owner=owner, place="/tickets", objectives=OBJECTIVES)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("change", "said"),
    [({"password": "wrong-one"}, "password"), ({"database": "none-such"}, "does not exist")],
)
def test_a_database_that_lets_nobody_in_is_refused(
    postgresql: PostgreSQL, change: dict[str, str], said: str
) -> None:
    with pytest.raises(SweepError, match=said) as caught:
        Server(
            postgresql.url(**change), sweep="s", owner="id", place="/tickets", objectives=OBJECTIVES
        )
    assert "\n" not in str(caught.value)
    assert "wrong-one" not in str(caught.value)


@pytest.mark.exhaustive
def test_a_sweep_is_seen_on_the_server_and_the_password_nowhere(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """Neither in the command lines and environments of its processes, nor in what it writes."""
    space = {
        "model": "fc-16",
        "dataset": "digits",
        "weight_scale": {"uniform": [1.0, 2.0]},
        "train": {"steps": 40, "batch_size": 64},
        "sweep": {"name": "whole", "samples": 4, "objectives": OBJECTIVES},
    }
    (tmp_path / "space.yaml").write_text(json.dumps(space))
    temporary = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
    url = postgresql.url().render_as_string(hide_password=False)
    command = [str(Path(sys.executable).with_name("ticketsweep")), "run", "space.yaml"]
    seen: dict[str, bool] = {}  # whether the password was in it
    try:
        with (tmp_path / "output").open("wb") as output:
            driver = subprocess.Popen(
                [*command, "--storage", "tickets", "--wandb", "off"],
                cwd=tmp_path, env=os.environ | {VARIABLE: url, "TMPDIR": str(temporary)},
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            while driver.poll() is None:
                looked_at = [path for pid in below(driver.pid) for path in told_by(pid)]
                looked_at += temporary.rglob("*.*")  # which goes when the sweep ends
                for path in looked_at:
                    with contextlib.suppress(OSError):
                        seen[str(path)] = PASSWORD.encode() in path.read_bytes()
                time.sleep(1)
        assert driver.returncode == 0, (tmp_path / "output").read_text()
        for path in tmp_path.rglob("*.*"):
            seen[str(path)] = path.is_file() and PASSWORD.encode() in path.read_bytes()
    finally:
        driver.kill()
        driver.wait()
        shutil.rmtree(temporary, ignore_errors=True)
    assert any("raylet" in path for path in seen)
    assert any(path.endswith("environ") for path in seen)
    assert any(path.endswith("parquet") for path in seen)
    assert [path for path, is_in_there in seen.items() if is_in_there] == []
    trials = on_the_server(postgresql.url(), "whole")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4


def below(of: int) -> set[int]:
    """The processes that one has started, and those that they have."""
    children = {of}
    found: set[int] = set()
    while children:
        listed = {pid: parent_of(pid) for pid in pids()}
        children = {pid for pid, parent in listed.items() if parent in children} - found
        found |= children
    return found


def pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def parent_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def told_by(pid: int) -> list[Path]:
    return [Path(f"/proc/{pid}/{name}") for name in ("cmdline", "environ")]
