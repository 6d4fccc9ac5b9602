from __future__ import annotations

import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ticketsweep.errors import MISSING, ConfigError, Fault
from ticketsweep.settings import apply_settings, read_yaml, take_faults


@pytest.fixture
def write(tmp_path: Path):
    def write(content: str | bytes) -> Path:
        path = tmp_path / "space.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("+12", 12),
        ("012", 12),
        ("0x1F", 31),
        ("0o17", 15),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("off", "off"),
        ("yes", "yes"),
        ("1_000", "1_000"),
        ("190:20:30", "190:20:30"),
        ("2026-11-22", "2026-11-22"),
        ("'1'", "1"),
        ('"null"', "null"),
        ("<<", "<<"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(write, text: str, value: object):
    read = read_yaml(write(f"a: {text}\n"))["a"]
    assert read == value
    assert type(read) is type(value)


def test_a_yaml_1_1_directive_changes_nothing(write):
    assert read_yaml(write("%YAML 1.1\n---\na: off\n")) == {"a": "off"}


def test_keys_are_text_whatever_they_look_like(write):
    assert read_yaml(write("1: a\nnull: b\n'x y': c\n")) == {"1": "a", "null": "b", "x y": "c"}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("spcae.yaml", "did you mean '{folder}/space.yaml'?"),
        ("space", "did you mean '{folder}/space.yaml'?"),
        ("zebra.yml", "`ticketsweep list spaces` shows those of ./search_spaces"),
        ("none/space.yaml", "`ticketsweep list spaces` shows those of ./search_spaces"),
    ],
)
def test_for_a_missing_file_one_of_a_similar_name_is_told(write, name: str, remedy: str):
    folder = write("a: 1\n").parent
    with pytest.raises(ConfigError) as caught:
        read_yaml(folder / name)
    (fault,) = caught.value.faults
    assert fault.rule == "cannot be read: No such file or directory"
    assert fault.remedy == remedy.format(folder=folder)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_file_is_an_empty_mapping(write, text: str):
    assert read_yaml(write(text)) == {}


def test_a_byte_order_mark_is_no_part_of_a_key(write):
    assert read_yaml(write(b"\xef\xbb\xbfa: 1\n")) == {"a": 1}


def test_aliases_are_written_out(write):
    assert read_yaml(write("a: &x {b: [1, 2]}\nc: *x\n")) == {
        "a": {"b": [1, 2]},
        "c": {"b": [1, 2]},
    }


# Beyond U+FFFF, JSON writes two escapes where YAML has one; a key has at most 1024 characters.
TEXT = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=50)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, PLAIN, max_size=4))
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_is_read_as_json_reads_it(write, raw: dict[str, Any]):
    assert read_yaml(write(json.dumps(raw))) == raw


def test_ruamel_reads_the_same_where_it_follows_the_core_schema(write):
    text = (
        "a: [1, 2.5, -3e2, x, 'y', true, null, 0x10]\n"
        "b: {c: &q {d: e}, f: *q}\n"
        "g: |\n  two\n  lines\nh: >-\n  folded\n  text\n"
    )
    assert read_yaml(write(text)) == YAML(typ="safe", pure=True).load(text)


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("a: [1", "must be YAML (line 1, column 6"),
        ("a: 'x", "must be YAML (line 1"),
        ("a: b: c", "must be YAML (line 1, column 5"),
        ("\ta: 1", "must be YAML (line 1"),
        ("a: \0", "must be YAML"),
        ("%YAML 9.9\n---\na: 1", "must be YAML (line 1"),
        ("- a\n- b\n", "must be a mapping of settings, got ['a', 'b']"),
        ("text", "must be a mapping of settings, got 'text'"),
        ("!!python/object:os.system {}", "must be written without a YAML tag"),
        ("a: 1\n---\nb: 2\n", "must be one YAML document (line 2"),
        ("? [a]\n: 1\n", "must have text for every key (line 1"),
        ("a: &x b\n*x : 1\n", "must have text for every key (line 2"),
        ("a: " + "[" * 60_000, "must not be nested deeper than 20 levels (line 1)"),
        ("a: " + "{a: " * 15_000, "must not be nested deeper than 20 levels (line 1)"),
        ("\n".join(" " * i + "a:" for i in range(300)), "must not be nested deeper than 20"),
        (laughs(30), "must hold at most 20000 values"),
        ("a: [" + "1, " * 21_000 + "]", "must hold at most 20000 values"),
        ("a: 1\n" * 20_000, "must be a settings file of at most 64 KiB"),
        (b"a: \xff\n", "must be text in UTF-8, but its byte 3 is not"),
        ("a: 1".encode("utf-16"), "must be text in UTF-8, but its byte 0 is not"),
    ],
)
def test_what_is_no_settings_file_is_refused_at_once(write, content: str | bytes, rule: str):
    path = write(content)
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert time.process_time() - start < 2  # of the processor, which others use too
    (fault,) = caught.value.faults
    assert caught.value.source == str(path)
    assert str(fault).startswith(f"file {rule}")
    assert len(str(caught.value)) < 400
    assert caught.value.__cause__ is None


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(ConfigError, match="file cannot be read: No such file or directory"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="file cannot be read: Is a directory"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {b: 1, b: 2}", "a.b must be given once (again in line 1)"),
        ("a: 1\nb: 2\na: 3", "a must be given once (again in line 3)"),
        ("a:\n  b: !!int 3", "a.b must be written without a YAML tag (!!int in line 2)"),
        ("a: !x {b: 1}", "a must be written without a YAML tag (!x in line 1)"),
        ("a: &x {b: *x}", "a.b must not refer to itself or to what is not there (*x in line 1)"),
        ("a: &x [*x]", "a must not refer to itself or to what is not there (*x in line 1)"),
        ("a: *y", "a must not refer to itself or to what is not there (*y in line 1)"),
        ("a: [1, [2, {b: !!str 3}]]", "a.b must be written without a YAML tag (!!str in line 1)"),
    ],
)
def test_an_unusable_value_is_a_fault_in_its_place(write, text: str, message: str):
    raw = read_yaml(write(f"{text}\nsound: {{c: 1}}\n"))
    faults: list[Fault] = []
    assert take_faults(raw, faults)["sound"] == {"c": 1}
    assert [str(fault) for fault in faults] == [message]


def test_a_mapping_of_faults_leaves_nothing():
    fault = Fault("a.b", 1, "is odd")
    faults: list[Fault] = []
    assert take_faults({"a": {"b": fault}}, faults) is MISSING
    assert take_faults({"a": {}}, []) == {"a": {}}
    assert faults == [fault]


def test_a_dotted_key_merges_and_a_mapping_replaces():
    raw = {"gate": {"init": 0.5, "lr": 1}, "seed": 0}
    assert apply_settings(raw, ["gate.init=1e-2", "seed=off"]) == {
        "gate": {"init": 0.01, "lr": 1},
        "seed": "off",
    }
    assert apply_settings(raw, ["gate={init: 2}"])["gate"] == {"init": 2}
    assert apply_settings(raw, ["gate={init: 2}", "gate.x=[1]"])["gate"] == {"init": 2, "x": [1]}
    assert apply_settings(raw, [" train.lr =a=b"])["train"] == {"lr": "a=b"}
    assert apply_settings({"gate": None}, ["gate.a.b="]) == {"gate": {"a": {"b": None}}}
    assert raw == {"gate": {"init": 0.5, "lr": 1}, "seed": 0}


def test_settings_do_not_reach_through_an_alias(write):
    raw = read_yaml(write("a: &x {b: {c: 1}}\nd: *x\n"))
    assert apply_settings(raw, ["a.b.c=2"]) == {"a": {"b": {"c": 2}}, "d": {"b": {"c": 1}}}


def test_nothing_is_set_inside_a_value():
    raw = {"seed": 3, "gate": {"choice": [{"init": 1}]}}
    with pytest.raises(ConfigError) as caught:
        apply_settings(raw, ["seed.x=1", "gate.init=2"])
    assert [str(fault) for fault in caught.value.faults] == [
        "--set seed.x cannot be set inside seed, which is 3 (set seed as a whole)",
        "--set gate.init cannot be set inside gate, which is {choice: [{init: 1}]} "
        "(set gate as a whole)",
    ]
    assert apply_settings(raw, ["gate.choice=[{init: 2}]"])["gate"] == {"choice": [{"init": 2}]}


def test_every_bad_setting_is_reported():
    bad = ["seed", "=1", "a..b=1", "a=[1", "b=!!int 1", "c={d: 1, d: 2}", "e=\0", "f=" + laughs(9)]
    with pytest.raises(ConfigError) as caught:
        apply_settings({}, [*bad, "fine=1"])
    assert [fault.key for fault in caught.value.faults] == [
        "--set", "--set", "--set", "--set a", "b", "c.d", "--set e", "--set f",
    ]  # fmt: skip


CHARACTERS = "abz019 \n\n\t-:,.[]{}#&*!|>'\"%@`?~=<\\/+_eExo\0\r\x85\u2028é"
PIECES = ["- ", ": ", "&a ", "*a", "!!", "!<x>", "---\n", "...\n", "\n  ", "0x", ".inf", "<<: ",
          "? ", "%YAML 1.1\n", "|2-", "2026-01-01"]  # fmt: skip
YAML_LIKE = st.lists(st.sampled_from([*CHARACTERS, *PIECES]), max_size=40).map("".join)


@given(YAML_LIKE | st.text())
@hypothesis_settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_settings_or_a_config_error(write, text: str):
    path = write(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        assert isinstance(read_yaml(path), dict)


@given(st.lists(YAML_LIKE | st.builds("{}={}".format, st.sampled_from(["a", "a.b"]), YAML_LIKE)))
@hypothesis_settings(max_examples=200)
def test_any_setting_is_applied_or_a_config_error(given_settings: list[str]):
    with contextlib.suppress(ConfigError):
        assert isinstance(apply_settings({"a": {"b": 1}}, given_settings), dict)
