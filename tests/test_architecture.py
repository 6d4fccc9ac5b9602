"""Imports point down only, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ticketsweep

PACKAGE = Path(ticketsweep.__file__).parent

# A part may import the parts of lower levels, and itself. Parts of one level are siblings.
LEVELS = (
    ("__init__", "errors", "progress", "readable", "seeds", "symmetry"),
    ("distributions", "names", "sections"),
    ("families",),
    ("config", "settings"),
    ("starting_points", "sweep_settings"),
    ("space",),
    ("train", "store", "analysis"),
    ("narration", "planning", "records"),
    ("trial", "results"),
    ("revisit",),
    ("exchange", "sweep", "display"),
    ("report",),
    ("api",),
    ("cli", "__main__"),
)
CONFIGURATION = {
    "config",
    "families",
    "names",
    "sections",
    "settings",
    "space",
    "starting_points",
    "distributions",
    "sweep_settings",
}
NO_CONFIGURATION = {"train", "store", "analysis"}  # they take plain values

# The only parts that may import a library.
KEPT_TO = {
    "ray": {"sweep"},
    "optuna": {"sweep"},
    "wandb": {"sweep"},
    "tensorboardX": {"sweep"},
    "plotly": {"report"},
    "kaleido": {"report"},
    "torch": {"train", "trial", "revisit", "exchange", "sweep", "cli"},
    "torchvision": {"train"},
    "pydantic": {"config", "families", "sections", "space", "sweep_settings"},
    "ruamel": {"settings"},
    "duckdb": {"store"},
}
HEAVY = ["torch", "ray", "optuna", "wandb", "plotly", "pyarrow", "duckdb", "scipy", "pydantic"]


def imports(path: Path, modules: set[str]) -> Iterator[tuple[int, str]]:
    """Every import in a file as (line, dotted name), those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                yield node.lineno, f"{'.' * node.level}{source}"
            for alias in node.names if not node.level else ():
                inner = f"{source}.{alias.name}"
                yield node.lineno, inner if inner in modules else source


def violations(root: Path) -> list[str]:
    """Every import of a package `ticketsweep` at `root` that breaks a rule."""
    files = sorted(root.rglob("*.py"))
    modules = {".".join((root.name, *f.relative_to(root).with_suffix("").parts)) for f in files}
    modules |= {f"{root.name}.{part.name}" for part in root.iterdir() if part.is_dir()}
    level_of = {part: level for level, parts in enumerate(LEVELS) for part in parts}
    found = []
    for path in files:
        inside = path.relative_to(root).with_suffix("")
        part = inside.parts[0]
        if part not in level_of:
            found.append(f"{inside}: {part!r} has no level")
            continue
        for line, name in imports(path, modules):
            words = name.split(".")
            where = f"{inside}:{line} imports {name}"
            if not words[0]:
                found.append(f"{where}, which is relative")
            elif words[0] != root.name:
                if part not in KEPT_TO.get(words[0], {part}):
                    found.append(f"{where}, which is kept to {sorted(KEPT_TO[words[0]])}")
            else:
                target = words[1] if len(words) > 1 else "__init__"
                if target not in level_of:
                    found.append(f"{where}, which has no level")
                elif target != part and level_of[target] >= level_of[part] > 0:
                    found.append(f"{where}, which does not lie below it")
                elif part in NO_CONFIGURATION and target in CONFIGURATION:
                    found.append(f"{where}, but configuration stops above it")
    return sorted(set(found))


def test_imports_point_down_and_libraries_stay_where_they_belong():
    assert violations(PACKAGE) == []


def test_every_part_of_the_configuration_exists():
    assert all((PACKAGE / f"{part}.py").is_file() for part in CONFIGURATION)


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("store/a.py", "import ticketsweep.train.loop", "does not lie below"),
        ("train/a.py", "from ticketsweep import store", "does not lie below"),
        ("train/a.py", "from ticketsweep.config import TrialConfig", "configuration stops above"),
        ("analysis/deep/a.py", "from ticketsweep.trial import run_trial", "does not lie below"),
        ("trial.py", "def f():\n    from ticketsweep.sweep import runner", "does not lie below"),
        ("config.py", "from ticketsweep.space import SweepSpec", "does not lie below"),
        ("trial.py", "import ray.tune", "kept to ['sweep']"),
        ("cli.py", "def f():\n    import optuna", "kept to ['sweep']"),
        ("analysis/a.py", "from torch import nn", "kept to"),
        ("store/a.py", "if True:\n    import torch", "kept to"),
        ("config.py", "def f():\n    import torch.nn", "kept to"),
        ("train/a.py", "from . import loop", "is relative"),
        ("utils.py", "", "has no level"),
        ("cli.py", "import ticketsweep.utils", "has no level"),
    ],
)
def test_a_broken_rule_is_found(tmp_path: Path, file: str, text: str, complaint: str):
    root = tmp_path / "ticketsweep"
    sound = {
        "__init__.py": "__version__ = '0'",
        "train/loop.py": "import torch\nfrom ticketsweep import __version__",
        "store/__init__.py": "",
        "trial.py": "from ticketsweep import store\nfrom ticketsweep.config import TrialConfig",
        "sweep/runner.py": "import ray\nfrom ticketsweep.trial import run_trial",
    }
    for name, content in sound.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    assert violations(root) == []
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    (violation,) = violations(root)
    assert complaint in violation


def loaded_by(statement: str) -> set[str]:
    """The heavy libraries that a fresh process has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*(set({HEAVY}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import ticketsweep", set()),
        ("import ticketsweep.seeds, ticketsweep.errors, ticketsweep.settings", set()),
        ("import ticketsweep.space", {"pydantic"}),
        ("import ticketsweep.cli", set()),
        ("from ticketsweep import run, open", {"pydantic", "pyarrow", "duckdb", "scipy"}),
    ],
)
def test_what_an_import_loads(statement: str, allowed: set[str]):
    assert loaded_by(statement) <= allowed


def test_no_module_outgrows_a_reader():
    lengths = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path.name: n for path, n in lengths.items() if n > 450} == {}
