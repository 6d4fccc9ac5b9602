"""The README says what is: its tree, its commands, its example, its test line."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ticketsweep.cli import app
from ticketsweep.settings import read_yaml
from ticketsweep.space import load_space, read_space

ROOT = Path(__file__).parents[1]
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
PAGES = ("README.md", "search_spaces/README.md", "cluster/README.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")
DATA = Path(os.environ.get("TICKETSWEEP_TEST_DATA", ROOT.parent / "shared" / "data"))
# What the reader is to put in; and files of others' programs.
ABSENT = ("BUCKET", "RUN/", "checkpoints/", "TRIAL", "parquet:DIR", "imagefolder:DIR")
# Hours of training: the same command for a moment.
BRIEF = ("--set", "train.steps=2", "--set", "replicates={init: 2}")


def code_blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S)
    return [block for of, block in blocks if of == language]


def commands(page: str) -> list[list[str]]:
    """Every `ticketsweep …` of a page's shell blocks, split as a shell splits it."""
    found = []
    for block in code_blocks(page, "sh"):
        words = shlex.split(block.replace("&&", "\n;\n"), comments=True)
        starts = [i for i, word in enumerate(words) if word == "ticketsweep"]
        ends = [*starts[1:], len(words)]
        found += [words[i:j] for i, j in zip(starts, ends, strict=False)]
    return found


def first_sentence(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def tree(folder: Path, depth: int = 1) -> list[str]:
    lines = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.name.startswith("__") or path.suffix not in ("", ".py"):
            continue
        if path.is_dir() and not (path / "__init__.py").exists():  # no code
            continue
        name = f"{path.name}/" if path.is_dir() else path.name
        source = path / "__init__.py" if path.is_dir() else path
        lines.append(f"{'  ' * depth + name:<30} {first_sentence(source)}".rstrip())
        if path.is_dir():
            lines += tree(path, depth + 1)
    return lines


def test_the_tree_is_the_package_with_each_files_own_sentence() -> None:
    shown = next(block for block in code_blocks("README.md", "") if "ticketsweep/" in block)
    assert shown.splitlines() == ["ticketsweep/", *tree(ROOT / "ticketsweep")]


def test_the_continuous_integration_runs_the_readmes_test_line() -> None:
    lines = [line for block in code_blocks("README.md", "sh") for line in block.splitlines()]
    test_lines = [line for line in lines if line.endswith("uv run pytest")]
    assert len(test_lines) == 1
    assert test_lines[0] in (ROOT / ".ci/run").read_text().splitlines()


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_that_a_page_shows_exists(page: str) -> None:
    shown = commands(page)
    assert shown
    for _, command, *arguments in shown:
        path = [command, *arguments[:1]] if command == "masks" else [command]
        answer = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
        assert answer.exit_code == 0, path
        for option in (word for word in arguments if word.startswith("--")):
            assert re.search(rf"{option}\b", answer.output), f"{command} {option}"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    spaces = re.findall(r"search_spaces/\w+\.yaml", text)
    missing = [name for name in links if not (ROOT / page).parent.joinpath(name).exists()]
    assert missing + [name for name in spaces if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("example", code_blocks("README.md", "yaml"))
def test_every_example_of_settings_is_sound(example: str, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(example, encoding="utf-8")
    assert load_space(path).distributions()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda p: p.name
)
def test_every_search_space_that_is_shipped_is_sound_and_described(path: Path) -> None:
    assert read_space(path).source == str(path)
    assert "model" in read_yaml(path)
    assert f"`{path.name}`" in (ROOT / "search_spaces/README.md").read_text(encoding="utf-8")


def test_ones_own_network_runs_and_is_read_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook, source, _, reading = code_blocks("README.md", "python")
    (tmp_path / "mynet.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (line,) = [words for words in commands("README.md") if "model=mynet:net" in words]
    few = ["--set", "train.steps=2", "--set", "width=0.5"]
    result = CliRunner().invoke(app, [*line[1:], *few])
    assert result.exit_code == 0, result.output
    assert "complete" in result.output
    # And what was stored is read as the page reads it: in SQL, and from a layer of this network.
    for line in [words for words in commands("README.md") if words[1] == "query"]:
        result = CliRunner().invoke(app, line[1:])
        assert result.exit_code == 0, result.output
    scope: dict[str, object] = {}
    exec(reading.replace("fc1.weight", "4.weight"), scope)
    for name in ("ticket", "state"):
        found = scope[name]
        assert isinstance(found, dict)
        assert set(found) == {"0.weight", "4.weight"}
    # And compared as in the page's notebook.
    masks = {name: np.eye(4, dtype=bool)[:, None] for name in ("fc1", "fc2")}
    exec(notebook.replace("quickstart", "single"), dict(masks))


def briefly(words: list[str]) -> list[str]:
    """A command that would train for long, with few steps; any other as it is."""
    command, *arguments = words
    space = next((word for word in arguments if word.endswith(".yaml")), "")
    if space.endswith("quickstart.yaml") or command not in ("run", "trial"):
        return words
    changed = [word.replace("data_root=DIR", f"data_root={DATA}") for word in words]
    return [*changed, *BRIEF, *(["--samples", "1"] if command == "run" else [])]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder like a fresh clone's, with the page's own network in it."""
    shutil.copytree(ROOT / "search_spaces", tmp_path / "search_spaces")
    sources = [block for block in code_blocks("README.md", "python") if "def net(" in block]
    (tmp_path / "mynet.py").write_text(sources[0], encoding="utf-8")
    return tmp_path


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
def test_every_command_of_the_readme_does_what_it_says(place: Path) -> None:
    """In their order, in one folder, as a reader would."""
    program = str(Path(sys.executable).with_name("ticketsweep"))
    environment = {**os.environ, "WANDB_MODE": "offline", "COLUMNS": "80"}
    environment.pop("TICKETSWEEP_STORAGE", None)
    ran = 0
    for _, *words in [["", "run", "search_spaces/quickstart.yaml"], *commands("README.md")]:
        if any(mark in word for mark in ABSENT for word in words):
            continue
        if any("data_root=DIR" in word for word in words) and not DATA.is_dir():
            continue
        done = subprocess.run(
            [program, *briefly(words)],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        ran += 1
    assert ran >= 15
    _, _, sweeping, _ = code_blocks("README.md", "python")
    (place / "script.py").write_text(sweeping, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mynet: 6 complete trials" in done.stdout
