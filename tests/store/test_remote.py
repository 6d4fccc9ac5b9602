"""The database on an object store: a real S3 server on loopback, whose connections can be cut."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import pyarrow.fs as pafs
import pytest

from ticketsweep.cli import main
from ticketsweep.errors import StorageError
from ticketsweep.store.checkpoints import CheckpointFile
from ticketsweep.store.claims import claimed
from ticketsweep.store.cleaning import clean, find_litter
from ticketsweep.store.compaction import compact
from ticketsweep.store.database import Database, open_database
from ticketsweep.store.deletion import delete_sweep
from ticketsweep.store.paths import Storage
from ticketsweep.store.remote import shown_uri
from ticketsweep.store.schema import MaskRow, TrialRows
from ticketsweep.store.under_way import note_begun
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import copy_trial, write_trial

moto_server = pytest.importorskip("moto.server", reason="moto (with flask) is not installed")

KEY, SECRET = "AKIASWORDFISH", "mithril/and+more"
FOOTER = 64 * 1024  # bytes that are read of a file at first
LARGE = (("fc1.weight", (1000, 4000)), ("fc2.weight", (700, 4000)))
SPACE = """
model: fc-16
gate: {l0_strength: {uniform: [0.5, 2.0]}}
train: {steps: 30, batch_size: 32}
sweep: {name: small, samples: 1}
"""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    sent: int


class Server:
    """moto's S3 behind a door: it counts what is asked, and can refuse, delay or cut it."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.requests: list[Request] = []
        self.fault: Callable[[str, str, str], bool] = lambda method, path, query: False

    def _answer(self, environ, start_response):
        method, path, query = (
            environ[key] for key in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING")
        )
        if "HTTP_AUTHORIZATION" not in environ:  # a private bucket, as most are
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        if self.fault(method, path, query):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            start_response("200 OK", [])
            return []
        pieces = list(self._application(environ, start_response))
        self.requests.append(Request(method, path, query, sum(map(len, pieces))))
        return pieces

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(running, monkeypatch) -> Iterator[Server]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{running.address}")
    monkeypatch.setattr("ticketsweep.store.remote._ATTEMPTS", 2)  # it waits longer after each
    running.requests.clear()
    yield running
    running.fault = lambda method, path, query: False


@pytest.fixture
def uri(server, request) -> str:
    bucket = f"bucket-{abs(hash(request.node.name))}"
    made = pafs.S3FileSystem(
        endpoint_override=server.address, scheme="http", allow_bucket_creation=True
    )
    made.create_dir(bucket)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture
def storage(uri) -> Storage:
    return Storage.open(uri, create=True)


def everything(storage: Storage) -> dict[str, bytes]:
    selector = pafs.FileSelector(storage.root.split("/")[0], recursive=True)
    found = {}
    for info in storage.filesystem.get_file_info(selector):
        with suppress(FileNotFoundError):  # deleted since
            if info.type == pafs.FileType.File:
                with storage.filesystem.open_input_file(info.path) as stream:
                    found[info.path] = stream.read()
    return found


def large_trial(make_trial, trial_id="t0", *, seed=0) -> TrialRows:
    """A trial whose masks are uploaded in several parts."""
    rng = np.random.default_rng(seed)
    masks = [
        MaskRow(replicate, 10, layer, index, shape, rng.bytes(shape[0] * shape[1] // 8))
        for index, (layer, shape) in enumerate(LARGE)
        for replicate in range(20)
    ]
    rows = make_trial(trial_id, replicates=20)
    return TrialRows(rows.trial, rows.replicates, masks, rows.curves)


def ended(*arguments: object, folder, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with this one's environment."""
    return subprocess.run(
        [sys.executable, "-c", "from ticketsweep.cli import main; main()", *map(str, arguments)],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """The command line in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ticketsweep", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        return int(exit_.value.code or 0), *capfd.readouterr()

    return run


def test_what_is_written_is_read_back(storage, uri, make_trial):
    rows = make_trial()
    write_trial(storage, "a", rows)
    copy_trial(storage, "t0", "a", "b", search=None)
    database = open_database(uri)
    assert database.trials()["sweep"].to_pylist() == ["a", "b"]
    assert database.masks("b")["digest"].to_pylist() == [mask.digest for mask in rows.masks]
    assert database.sql("select sum(mask_kept(bits)) k from masks")["k"][0].as_py() == 2 * sum(
        mask.kept for mask in rows.masks
    )
    assert sum(batch.num_rows for batch in database.mask_batches()) == 8
    assert set(database.ticket("t0", 1)) == {"fc1", "fc2"}
    assert database.find_complete("t0") == "a"
    assert verify(storage, report=lambda done, of: None).sound


def test_the_endpoint_may_stand_in_the_uri(server, storage, uri, make_trial, monkeypatch):
    write_trial(storage, "a", make_trial())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    there = f"{uri}?endpoint_override={server.address}&scheme=http&region=eu-west-1"
    database = open_database(there)
    assert len(database.trials()) == 1
    assert database.storage.filesystem.region == "eu-west-1"
    assert len(open_database(f"{uri}?endpoint_override=http://{server.address}/").trials()) == 1


def test_a_whole_bucket_may_be_the_storage(server, uri, make_trial):
    storage = Storage.open(uri.removesuffix("/some/prefix"), create=True)
    write_trial(storage, "a", make_trial())
    assert len(open_database(storage.uri + "/").masks()) == 4


def test_every_reading_command_works(storage, uri, make_trial, command):
    for trial in ("t0", "t1"):
        write_trial(storage, "a", make_trial(trial))
    code, out, err = command("status", "a", "--storage", uri)
    assert (code, err) == (0, "")
    assert "t0" in out
    code, out, _ = command("list", "sweeps", "--storage", uri)
    assert code == 0
    assert re.search(r"^a\b", out, flags=re.M)
    count = "select count(*) n from masks"
    assert json.loads(command("query", count, "--format", "json", "--storage", uri)[1]) == [
        {"n": 8}
    ]
    spoilt = storage.trial_file("masks", "a", "t1")
    with storage.filesystem.open_output_stream(spoilt) as stream:
        stream.write(b"damaged")
    code, out, _ = command("masks", "verify", "--storage", uri, "--format", "json")
    assert code == 1
    assert "t1" in out
    assert command("masks", "verify", "--quarantine", "--storage", uri)[0] == 1
    assert command("masks", "verify", "--storage", uri)[0] == 0
    moved = [path for path in everything(storage) if "/quarantine/" in path]
    assert sum("t1" in path for path in moved) == 4
    assert Database(storage).trials()["trial_id"].to_pylist() == ["t0"]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_sweep_runs_and_no_secret_is_left_anywhere(storage, uri, command, tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    run = ["run", "space.yaml", "--format", "json", "--wandb", "off"]
    process = ended(*run, "--storage", uri, folder=tmp_path)
    assert process.returncode == 0, process.stderr
    texts = {"run": (process.stdout + process.stderr).encode()}
    for line in (["status", "small"], ["stability", "small"], ["masks", "verify"]):
        code, out, err = command(*line, "--storage", uri)
        assert code == 0, err
        texts[line[0]] = (out + err).encode()
    assert Database(storage).trials("small")["status"].to_pylist() == ["complete"]
    stored = everything(storage)
    assert not any(re.search("/optuna/|/checkpoints/.", path) for path in stored)
    local = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for place, text in {**stored, **local, **texts}.items():
        assert SECRET.encode() not in text, place
        assert KEY.encode() not in text, place


@pytest.mark.slow
def test_a_trial_that_is_cut_off_goes_on_from_its_checkpoint(storage, uri, command, tmp_path):
    settings = {"model": "fc-16", "train.steps": 2000, "train.batch_size": 32,
                "checkpoint_seconds": 0.2}  # fmt: skip
    line = ["trial", "--storage", uri, "--sweep", "one"]
    line += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with subprocess.Popen(
        [sys.executable, "-c", "from ticketsweep.cli import main; main()", *line],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        until = time.monotonic() + 60
        while not (kept := storage.checkpoints()):
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert len(kept) == 1
    code, _, err = command(*line)
    assert code == 0, err
    first_step = int(re.search(r"step ([\d,]+) of", err)[1].replace(",", ""))
    assert first_step > 0
    assert storage.checkpoints() == {}
    assert Database(storage).trials("one")["steps_done"].to_pylist() == [2000]


def test_many_sweeps_are_asked_at_once_for_a_trial(server, storage, make_trial):
    for at in range(20):
        write_trial(storage, f"s{at:02}", make_trial("other" if at < 15 else "t0", seed=at))
    asking, most = 0, 0
    lock = threading.Lock()

    def slowly(method: str, path: str, query: str) -> bool:
        nonlocal asking, most
        with lock:
            asking += 1
            most = max(most, asking)
        time.sleep(0.05)
        with lock:
            asking -= 1
        return False

    server.fault = slowly
    assert Database(storage).find_complete("t0") == "s15"
    assert Database(storage).find_complete("t9") is None
    assert most >= 8


def test_only_matching_row_groups_cross_the_network(server, storage, uri, make_trial):
    for trial in ("t0", "t1"):
        write_trial(storage, "a", large_trial(make_trial, trial))
    sizes = {file.name: file.size for file in storage.files("masks")}
    asked: dict[str, Callable[[Database], object]] = {
        "no bits": lambda d: d.sql("select layer, avg(kept) from masks group by 1"),
        "layer": lambda d: d.masks("a", "t0", layer="fc2.weight"),
        "sql": lambda d: d.sql(
            "select bits from masks where trial_id = 't0' and layer = 'fc2.weight'"
        ),
    }
    own = 20 * 700 * 4000 // 8  # bytes of the bits of fc2.weight, which are incompressible
    for how, ask in asked.items():
        database = open_database(uri)
        server.requests.clear()
        ask(database)
        gets = [r for r in server.requests if r.method == "GET" and "/masks/" in r.path]
        sent = sum(request.sent for request in gets)
        footers = (FOOTER + 4096) * len(sizes)  # and the pages of small columns before them
        assert sent <= footers + (0 if how == "no bits" else 1.1 * own), how
    whole = sum(sizes.values())
    assert own + footers < whole / 2


UPLOAD = re.compile(r"partNumber=(\d+)")


@pytest.mark.parametrize("at", ["CreateMultipartUpload", "part 2", "CompleteMultipartUpload"])
def test_an_upload_that_is_cut_leaves_nothing_to_be_seen(server, storage, make_trial, at):
    def cut(method: str, path: str, query: str) -> bool:
        if "/masks/" not in path:
            return False
        return {
            "CreateMultipartUpload": method == "POST" and query.startswith("uploads"),
            "part 2": method == "PUT" and "partNumber=2" in query,
            "CompleteMultipartUpload": method == "POST" and "uploadId=" in query,
        }[at]

    rows = large_trial(make_trial)
    server.fault = cut
    with pytest.raises(StorageError, match="cannot write") as caught:
        write_trial(storage, "a", rows)
    assert "\n" not in str(caught.value)
    assert "check the network and the endpoint" in str(caught.value)
    assert not [path for path in everything(storage) if path.endswith(".parquet")]
    server.fault = lambda method, path, query: False
    write_trial(storage, "a", rows)
    assert verify(storage, report=lambda done, of: None).sound
    assert Database(storage).masks().num_rows == 40


def test_a_connection_that_is_cut_once_is_no_loss(server, storage, make_trial):
    seen: set[tuple[str, str, str]] = set()

    def cut_first(*request: str) -> bool:
        first = request not in seen and "/masks/" in request[1]
        seen.add(request)
        return first

    server.fault = cut_first
    write_trial(storage, "a", large_trial(make_trial))
    assert Database(storage).masks(columns=["digest"]).num_rows == 40


WRITER = """
import sys
import numpy as np
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MaskRow, TrialRows
from ticketsweep.store.writer import write_trial
mask = MaskRow(0, 1, "fc1", 0, (16_000, 8_000), np.random.default_rng(0).bytes(16_000_000))
storage = Storage.open(sys.argv[1], create=True)
write_trial(storage, "a", TrialRows({"trial_id": "t0", "status": "complete"}, [], [mask], []))
"""


def test_a_writer_that_is_killed_in_an_upload_leaves_nothing_to_be_seen(server, storage, uri):
    reached, go_on = threading.Event(), threading.Event()

    def hold(method: str, path: str, query: str) -> bool:
        if found := UPLOAD.search(query):
            if found[1] == "1":
                return False
            reached.set()
            go_on.wait(30)
            return True
        return False

    server.fault = hold
    with subprocess.Popen([sys.executable, "-c", WRITER, uri]) as process:
        assert reached.wait(60)
        process.send_signal(signal.SIGKILL)
    go_on.set()
    server.fault = lambda method, path, query: False
    assert not [path for path in everything(storage) if path.endswith(".parquet")]
    assert Database(storage).trials().num_rows == 0
    assert subprocess.run([sys.executable, "-c", WRITER, uri], check=True).returncode == 0
    assert len(Database(storage).ticket("t0")["fc1"]) == 16_000


def test_a_checkpoint_is_replaced_wholly_or_not_at_all(server, storage):
    checkpoint = CheckpointFile(storage, "t0")
    checkpoint.write(b"first")
    server.fault = lambda method, path, query: method in ("PUT", "POST")
    with pytest.raises(StorageError, match="cannot write"):
        checkpoint.write(b"x" * (12 << 20))
    server.fault = lambda method, path, query: False
    assert checkpoint.read() == b"first"
    checkpoint.delete()
    assert checkpoint.read() is None


def test_an_outage_is_not_taken_for_damage(server, storage, uri, make_trial):
    write_trial(storage, "a", make_trial())
    server.fault = lambda method, path, query: method == "GET" and "/masks/" in path
    database = open_database(uri)
    for ask in (database.masks, lambda: database.sql("select count(*) from masks")):
        with pytest.raises(StorageError, match="check the network"):
            ask()
    with pytest.raises(StorageError, match="check the network"):
        verify(storage, report=lambda done, of: None)
    assert database.warnings == ()
    server.fault = lambda method, path, query: False
    assert len(database.masks()) == 4


LINES = (
    ["status"],
    ["query", "select 1"],
    ["masks", "verify"],
    ["trial", "--set", "model=fc-4", "--set", "train.steps=2"],
)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_a_storage_that_cannot_be_reached_is_one_line(server, command, line):
    code, out, err = command(*line, "--storage", "s3://no-such-bucket/prefix")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"Error: storage s3://no-such-bucket/prefix [^\n]+\n", err), err
    assert "does not exist" in err or "make the bucket first" in err


def test_a_server_that_is_down_is_one_line_within_seconds(server, command, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    start = time.monotonic()
    code, out, err = command("status", "--storage", "s3://bucket/prefix")
    assert time.monotonic() - start < 20
    assert (code, out) == (2, "")
    assert re.fullmatch(r"Error: storage s3://bucket/prefix [^\n]+\n", err), err
    assert "check the network and the endpoint: $AWS_ENDPOINT_URL" in err


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up(server, command, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        code, _, err = command("status", "--storage", "s3://bucket/prefix")
    assert time.monotonic() - start < 40
    assert code == 2
    assert "check the network" in err


def test_missing_or_wrong_credentials_are_one_line(server, uri, storage, command, monkeypatch):
    from moto.core.responses import ActionAuthenticatorMixin

    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    monkeypatch.setattr(ActionAuthenticatorMixin, "request_count", 0)
    code, out, err = command("status", "--storage", uri)
    assert (code, out) == (2, "")
    assert "check the credentials: $AWS_ACCESS_KEY_ID" in err
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    code, out, err = command("status", "--storage", uri)
    assert (code, out) == (2, "")
    assert "check the credentials: $AWS_ACCESS_KEY_ID" in err
    assert err.count("\n") == 1


SECRETS = (
    f"s3://{KEY}:{SECRET}@bucket/prefix",
    f"s3://{KEY}:{quote(SECRET, safe='')}@bucket/prefix",
    f"s3://{SECRET}@bucket",
    f"S3://{KEY}:{SECRET}@bucket",
    f"s3://{KEY}:mithril?x@bucket/prefix",
    f"s3://{KEY}:mithril#x@bucket/prefix",
    f"s3://{KEY}:mithril[@bucket/prefix",
    f"s3://bucket/prefix?secret_key={SECRET}",
    f"s3://bucket/prefix?endpoint_override={KEY}:{SECRET}@127.0.0.1:1",
    f"s3://bucket/prefix#{SECRET}",
    f"gs://{SECRET}@bucket/prefix",
    f"s3://bucket/{KEY}:{SECRET}@prefix",
    f"gs://bucket/prefix?access_token={SECRET}",
    f"http://{KEY}:{SECRET}@bucket/prefix",
    f"hdfs://{KEY}:{SECRET}@bucket/prefix",
)


@pytest.mark.parametrize("line", [LINES[0], LINES[-1]], ids=lambda line: line[0])
@pytest.mark.parametrize("secret", SECRETS)
def test_a_uri_with_a_secret_is_refused_and_never_repeated(
    server, command, monkeypatch, tmp_path, secret, line
):
    for how in ("option", "variable"):
        if how == "variable":
            monkeypatch.setenv("TICKETSWEEP_STORAGE", secret)
        code, out, err = command(*line, *(["--storage", secret] if how == "option" else []))
        assert code == 2
        assert err.count("\n") == 1
        assert not re.search("mithril|SWORDFISH", out + err), err
    assert list(tmp_path.iterdir()) == []
    assert server.requests == []


def test_a_uri_is_shown_without_what_may_be_secret():
    assert shown_uri("s3://a:b/c?d@bucket/p?endpoint_override=x") == "s3://bucket/p"
    assert shown_uri("storage/here@work") == "storage/here@work"


def test_of_two_who_claim_a_sweep_on_an_object_store_one_gets_it(storage):
    with claimed(storage, "a", "run", waiting=print) as claim:
        with (
            pytest.raises(StorageError, match=rf"being run by process {os.getpid()} of"),
            claimed(storage, "a", "run", waiting=print),
        ):
            pass
        claim.check()
    with claimed(storage, "a", "run", waiting=print):
        pass
    assert storage.claims("a") == []


def test_a_sweep_is_deleted_and_leftovers_cleaned_on_an_object_store(storage, make_trial):
    for sweep in ("old", "kept"):
        for n in range(2):
            write_trial(storage, sweep, make_trial(f"t{n}", seed=n))
    compact(storage, "old", report=lambda *_: None)
    write_trial(storage, "old", make_trial("t2", seed=2))
    before = everything(storage)
    note_begun(storage, "old", "mine", "{}")
    for trial in ("mine", "t0"):
        CheckpointFile(storage, trial).write(b"state")
    (found,) = find_litter(storage, None, older_than=3600)
    assert found.kind == "checkpoint of a complete trial"
    clean(storage, [found], report=lambda *_: None)
    assert set(storage.checkpoints()) == {"mine"}
    doomed = delete_sweep(storage, "old", report=lambda *_: None)
    assert (doomed.trials, doomed.masks) == (3, 12)
    assert everything(storage) == {name: at for name, at in before.items() if "old" not in name}
    assert storage.sweeps_with_trials() == ["kept"]
    assert Database(storage).trials()["sweep"].to_pylist() == ["kept", "kept"]
