"""Whatever a search space or a `--set` says: a space, or an error in words, and either at once.

More of it: `TICKETSWEEP_FUZZ_CASES=20000 pytest tests/test_front_door.py -n 0`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from ticketsweep.config import TrialConfig
from ticketsweep.distributions import Label, corners
from ticketsweep.errors import UserError
from ticketsweep.families import FAMILIES
from ticketsweep.names import GATES, MODELS, OBJECTIVES
from ticketsweep.planning import check_trial, identify, load_data
from ticketsweep.space import SweepSpec, load_space, load_trial, parse_space
from ticketsweep.sweep_settings import SweepSettings

CASES = int(os.environ.get("TICKETSWEEP_FUZZ_CASES", "100"))
SECONDS = 10  # for one case, which takes milliseconds; on a busy machine
SPACES = sorted((Path(__file__).parents[1] / "search_spaces").glob("*.yaml"))
LEAK = re.compile(r"Traceback|<class|object at 0x|pydantic|ruamel|ValidationError|\{\w+!r\}")


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings, those of every gate family included."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of(field.annotation, f"{prefix}{name}.")


KEYS = [
    *keys_of(TrialConfig),
    *(key for family in FAMILIES.values() for key in keys_of(family, "gate.")),
    *keys_of(SweepSettings, "sweep."),
    "sweep", "sweep.scheduler.asha", "sweep.scheduler.asha.grace_steps",
    "sweep.objectives.stability", "model.lenet", "gate.choice", "a", "", ".", "...", "train.",
    "__class__", "model_config", "gate.__init__",
]  # fmt: skip

NUMBERS = [
    "0", "-0", "1", "-1", "2", "1e-3", "1e3", "1e308", "1e309", "-1e309", "1e-400", ".inf", "-.inf",
    ".nan", "0x10", "0o17", "1_000", "9" * 400, "9" * 500, "1" + "0" * 18, "9007199254740992",
    "0.5", "+1", "1.", ".5", "1e", "１２", "3.0", "true", "null", "~", "off",
]  # fmt: skip

WORDS = [
    *MODELS, *GATES, *OBJECTIVES, "digits", "mnist", "grid", "tpe", "nsga2", "asha", "none", "max",
    "min", "cuda", "joint", "neuron", "fc-", "fc-0", "fc-1-1", "fc-99999999999999999999", "fc--1",
    "fc-" + "9" * 5000, "os:system", "os:getcwd", "nowhere:nothing", ":", "a:", ":a", "a:b:c",
    "builtins:exit", "sys:exit", "parquet:", "imagefolder:/", "parquet:/dev/null",
    "../../etc/passwd", "/dev/zero",
    "a" * 5000, "\\0", '"\\u0000"', '"\\ud800"', '"\\x1b[31m"', "💥", "é", "\u202e", "%s", "{}",
    "$(id)", "''", '""',
    "2026-11-23", "12:30:45", "!!python/object:os.system x", "!!binary aGk=", "&a [*a]", "*b",
    "|", ">", "? a", "- ", "%YAML 1.1", "---", "...", "#", "@", "`", "\t", "<<: {a: 1}",
]  # fmt: skip


def value(rng: random.Random, depth: int = 0) -> str:
    """A value in YAML's flow style, sound or not."""
    pick = rng.random()
    if pick < 0.3:
        return rng.choice(NUMBERS)
    if pick < 0.55 or depth > 3:
        return rng.choice(WORDS)
    if pick < 0.75:
        word = rng.choice(["uniform", "loguniform", "int", "choice", "Choice", "normal"])
        return f"{{{word}: {items(rng, depth)}}}"
    if pick < 0.85:
        return items(rng, depth)
    if pick < 0.97:
        pairs = [f"{rng.choice(KEYS)}: {value(rng, depth + 1)}" for _ in range(rng.randrange(4))]
        return f"{{{', '.join(pairs)}}}"
    return "[" * rng.randrange(1, 60) + "]" * rng.randrange(60)


def items(rng: random.Random, depth: int) -> str:
    count = rng.choice((0, 1, 2, 2, 2, 3, 5))
    return f"[{', '.join(value(rng, depth + 1) for _ in range(count))}]"


def setting(rng: random.Random) -> str:
    key, text = rng.choice(KEYS), value(rng)
    return rng.choice((f"{key}={text}",) * 8 + (f"{key}", f"={text}", f" {key} = {text} ", "=", ""))


def flipped(text: str, rng: random.Random) -> bytes:
    """Bytes of a file with a few of them changed, gone, doubled or moved."""
    data = bytearray(text.encode())
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randrange(1, 20)]
            case 2:
                data[at:at] = data[at : at + rng.randrange(1, 80)]
            case 3:
                data[at:at] = rng.choice(WORDS).encode("utf-8", "surrogatepass")
            case _:
                lines = bytes(data).splitlines(keepends=True)
                rng.shuffle(lines) if rng.random() < 0.2 else lines.reverse()
                data = bytearray(b"".join(lines))
    return bytes(data)


def with_values(text: str, rng: random.Random) -> bytes:
    """A file of which some values are others."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        head, colon, _ = lines[at].partition(": ")
        lines[at] = f"{head}{colon}{value(rng)}" if colon else f"{rng.choice(KEYS)}: {value(rng)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Fails where the body takes long."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Drawn:
    """Draws from distributions at random, as a sampler would."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        return self._rng.choice((low, high, low + (high - low) / 2))

    def integer(self, name: str, low: int, high: int) -> int:
        return self._rng.randint(low, high)

    def choice(self, name: str, labels: Sequence[Label]) -> int:
        return self._rng.randrange(len(labels))


def verdict(action: Callable[[], object]) -> object:
    """What the action returns; what it refuses in words is None."""
    try:
        with at_once():
            return action()
    except UserError as refusal:
        error = refusal
    message = str(error)
    assert error.exit_code == 2
    assert message
    assert not LEAK.search(message), message
    assert all(char.isprintable() or char == "\n" for char in message), repr(message)
    assert max(map(len, message.splitlines())) < 2000, message
    return None


@cache
def digits() -> object:
    return load_data(TrialConfig())


def hold_to_the_laws(spec: SweepSpec, rng: random.Random) -> None:
    """What a space that was accepted can do."""
    drawn = [spec.sample(Drawn(rng)) for _ in range(3)]
    assert all(isinstance(config, TrialConfig) for config in drawn)
    written = json.loads(json.dumps(spec.as_plain(), allow_nan=False))
    sweep = spec.settings.model_dump(mode="json", exclude_defaults=True)
    again = parse_space({**written, "sweep": {**sweep, "name": "again"}}, source="again")
    assert again.as_plain() == spec.as_plain()
    next(iter(spec.grid()))
    for config in drawn:
        if config.dataset == "digits" and ":" not in config.model:  # which would run
            assert len(identify(config, digits())) == 16
    for point, _ in zip(corners(spec.tree), range(20), strict=False):
        config = TrialConfig.model_validate(point)
        if config.dataset == "digits" and ":" not in config.model:
            verdict(lambda config=config: check_trial(config, digits()))


def cases() -> Iterator[tuple[int, random.Random]]:
    for number in range(CASES):
        yield number, random.Random(number)


@pytest.mark.timeout(0 if CASES > 1000 else 300)
@pytest.mark.parametrize("damage", [flipped, with_values])
def test_a_file_is_a_space_or_refused_in_words(
    damage: Callable[[str, random.Random], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    accepted = 0
    for number, rng in cases():
        path.write_bytes(damage(rng.choice(SPACES).read_text(encoding="utf-8"), rng))
        try:
            spec = verdict(lambda: load_space(path))
            if isinstance(spec, SweepSpec):
                accepted += 1
                with at_once():
                    hold_to_the_laws(spec, rng)
        except BaseException as error:
            error.add_note(f"case {number}: {path.read_bytes()[:3000]!r}")
            raise
    assert 0.003 * CASES < accepted < CASES  # else the cases say little


@pytest.mark.timeout(0 if CASES > 1000 else 300)
def test_a_setting_is_taken_or_refused_in_words() -> None:
    accepted = 0
    for number, rng in cases():
        settings = [setting(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
        path = rng.choice(SPACES)
        try:
            verdict(lambda settings=settings: load_trial(None, settings=settings))
            spec = verdict(lambda path=path, settings=settings: load_space(path, settings=settings))
            if isinstance(spec, SweepSpec):
                accepted += 1
                with at_once():
                    hold_to_the_laws(spec, rng)
        except BaseException as error:
            error.add_note(f"case {number}: {path.name} {settings!r}")
            raise
    assert 0.01 * CASES < accepted < CASES
