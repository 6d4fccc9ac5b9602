"""W&B's own files of a run, in which all of it lies, uploaded or not.

FOLDER/wandb/offline-run-TIME-ID/run-ID.wandb     of a run that was recorded offline
FOLDER/wandb/run-TIME-ID/run-ID.wandb             of one that was uploaded as it went
….wandb.synced beside it                          there is nothing left to upload

The file begins with seven bytes (`:W&B`, 0xBEE1, version); then come records as LevelDB's logs have
them: blocks of 32 KiB, in them pieces with a checksum, a length and a type.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER, _PIECE = struct.Struct("<4sHB"), struct.Struct("<IHB")
_BLOCK = 32 * 1024
_WHOLE, _LAST = 1, 4  # types of a piece after which its record is complete


def run_files(folder: Path) -> dict[str, list[Path]]:
    """The files of every run by its id, oldest first."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("wandb/*run-*/run-*.wandb"), key=_begun):
        if not file.parent.is_symlink():  # `latest-run`
            found.setdefault(file.stem.removeprefix("run-"), []).append(file)
    return found


def _begun(file: Path) -> str:
    return file.parent.name.removeprefix("offline-")


def is_offline(file: Path) -> bool:
    """Whether the run was recorded offline."""
    return file.parent.name.startswith("offline-")


def is_uploaded(file: Path) -> bool:
    """Whether nothing of it is left to upload."""
    return _mark(file).exists()


def mark_uploaded(file: Path) -> None:
    """Let `wandb sync` pass it over."""
    with contextlib.suppress(OSError):
        _mark(file).touch()


def _mark(file: Path) -> Path:
    return file.with_suffix(".wandb.synced")


def discard_if_empty(file: Path) -> bool:
    """Remove a run without a single record, for which `wandb sync` would give up on all runs."""
    if next(records(file), None) is not None:
        return False
    shutil.rmtree(file.parent, ignore_errors=True)
    return True


def last_step(file: Path) -> int:
    """The last step of the run's history; -1 if there is none."""
    steps = [-1]
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            steps += [
                int(json.loads(item.value_json))
                for item in record.history.item
                if (item.key or item.nested_key[0]) == "_step"
            ]
    return max(steps)


def has_ended(file: Path) -> bool:
    """Whether the run was ended, and all of it is in the file."""
    return any(record.WhichOneof("record_type") == "exit" for record in records(file))


def records(file: Path) -> Iterator[Any]:
    """The records that are there whole, up to the first that is torn or damaged."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made later

    try:
        data = file.read_bytes()
    except OSError:
        return
    if len(data) < _HEADER.size or _HEADER.unpack_from(data)[:2] != (b":W&B", 0xBEE1):
        return
    at, parts = _HEADER.size, b""
    while at + _PIECE.size <= len(data):
        if _BLOCK - at % _BLOCK < _PIECE.size:
            at += _BLOCK - at % _BLOCK  # too little for a piece: padding
            continue
        _, length, kind = _PIECE.unpack_from(data, at)
        at += _PIECE.size
        if not kind or at + length > len(data):
            return
        parts += data[at : at + length]
        at += length
        if kind in (_WHOLE, _LAST):
            try:
                yield Record.FromString(parts)
            except DecodeError:
                return
            parts = b""
