from __future__ import annotations

import re
from pathlib import Path

import pytest

from ticketsweep.cli.template import module_text, space_text
from ticketsweep.distributions import corners
from ticketsweep.families import GaussianGate
from ticketsweep.space import load_space


def uncommented(text: str) -> str:
    """The file with every setting that stands in it as a comment."""
    return re.sub(r"^( *)# ?( *[a-z_0-9]+:( |$))", r"\1\2", text, flags=re.M)


def test_what_is_written_runs_as_it_is(command, tmp_path: Path) -> None:
    done = command("init", "my-search")
    assert (done.code, done.err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-search.yaml", "my_search.py"]
    assert "ticketsweep run my-search.yaml --dry-run" in done.out
    spec = load_space(tmp_path / "my-search.yaml")
    assert spec.settings.name == "my-search"
    first = ["rewind_step=5", "weight_scale=1.5", "gate.l0_strength=1", "gate.temperature=0.5"]
    few = ["train.steps=5", "replicates={init: 1, data: 1}", "pretrain.batch_size=8"]
    assert set(spec.distributions()) == {each.partition("=")[0] for each in first}
    changes = [word for each in (*first, *few) for word in ("--set", each)]
    done = command("trial", "my-search.yaml", *changes, "--format", "json")
    assert done.code == 0, done.err
    assert '"status": "complete"' in done.out


def test_every_setting_is_there_and_a_comment_left_out_changes_nothing(tmp_path: Path) -> None:
    text = space_text(name="s", model="fc-16", dataset="digits", batch_size=64, notes={})
    (tmp_path / "s.yaml").write_text(text)
    (tmp_path / "full.yaml").write_text(full := uncommented(text))
    assert len(re.findall(r"^ *#", full, flags=re.M)) < 12  # what is about a whole section
    spec, whole = (load_space(tmp_path / name) for name in ("s.yaml", "full.yaml"))
    assert whole.as_plain() == spec.as_plain()
    assert whole.settings == spec.settings
    for trial in corners(whole.tree):
        assert set(trial) >= {"retrain", "controls", "checkpoint_seconds"}
    described = [field.description for field in GaussianGate.model_fields.values()]
    assert all(each in text for each in described if each)


def test_nothing_is_overwritten_and_nothing_left_where_it_fails(command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("kept")
    done = command("init", "mine")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "mine.py exists" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
    assert command("init", "other", "--dataset", "parquet:nowhere").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
    done = command("init", "other", "--model", "lenet-30", "--dataset", "digits")
    assert done.code == 2
    assert "did you mean" in done.err


@pytest.mark.parametrize("name", ["torch", "random", "1st", "import", "a/b", "", "é"])
def test_a_name_must_be_one_of_a_sweep_and_of_a_module_of_ones_own(command, name: str) -> None:
    done = command("init", name)
    assert (done.code, "NAME must" in done.err) == (2, True)


def test_values_follow_the_data(command, tmp_path: Path) -> None:
    (tmp_path / "few.py").write_text(
        "import numpy as np\n"
        "def data():\n"
        "    y = np.arange(60) % 3\n"
        "    x = np.zeros((60, 2, 4, 6), np.uint8) + y.astype(np.uint8)[:, None, None, None]\n"
        "    return x, y, x, y\n"
    )
    done = command("init", "small", "--dataset", "few:data")
    assert done.code == 0, done.err
    text = (tmp_path / "small.yaml").read_text()
    assert "# 60 training images 2 x 4 x 6, 3 classes" in text
    assert load_space(tmp_path / "small.yaml").tree["train"]["batch_size"] == 30
    assert "def data" not in (tmp_path / "small.py").read_text()
    assert "import numpy" not in module_text(model=True, data=False)
