"""The text of a first search space, and of a module with a network and data of one's own.

Every comment on a setting is the description that `config` and its neighbours have of it.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from ticketsweep.config import Pretraining, Replicates, Retraining, Training, TrialConfig
from ticketsweep.families import FAMILIES, GaussianGate
from ticketsweep.names import OBJECTIVES
from ticketsweep.sections import Section
from ticketsweep.sweep_settings import Resources, SweepSettings

_WIDTH = 88  # of running text
_COLUMN = 36  # where comments on settings begin, if a setting is not longer
_ABOUT = {"sweep": "How the space is searched."}

_MODEL = '''
def model(input_shape, classes, width=1.0):
    """Any nn.Module from float images (N, C, H, W) to logits (N, classes)."""
    channels, height, across = input_shape
    hidden = round(16 * width)
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(hidden * (height // 2) * (across // 2), 64, bias=False),
        nn.ReLU(),
        nn.Linear(64, classes, bias=False),
    )
'''
_DATA = '''
def data():
    """Training images uint8 (N, C, H, W) and labels int64 (N,) from 0; then the test split."""
    digits = load_digits()
    images = (digits.images[:, None] * 15).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    return images[:1400], labels[:1400], images[1400:], labels[1400:]
'''


def module_text(*, model: bool, data: bool) -> str:
    """A Python module with a function `model`, a function `data`, or both."""
    what = " and ".join(word for word, wanted in (("network", model), ("data", data)) if wanted)
    imports = ["import numpy as np", "from sklearn.datasets import load_digits"] if data else []
    imports += ["from torch import nn"] if model else []
    functions = [text for text, wanted in ((_MODEL, model), (_DATA, data)) if wanted]
    head = f'"""The {what} of a search: put your own in the place of these."""'
    return "\n".join([head, "", *imports, "", "\n".join(functions)])


def space_text(
    *, name: str, model: str, dataset: str, batch_size: int, notes: Mapping[str, str]
) -> str:
    """A search space as YAML.

    Parameters
    ----------
    name: of the sweep.
    model, dataset: as the settings name them.
    batch_size: of all training.
    notes: comments on single settings, in the place of their description.
    """
    about = {
        "model": "`ticketsweep list models`",
        "dataset": "`ticketsweep list datasets`",
        **notes,
    }
    chosen: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "weight_init": "signed_constant",
        "weight_scale": {"uniform": [1.0, 2.0]},
        "rewind_step": {"choice": [0, 100]},
    }
    gate = {
        "family": "gaussian",
        "l0_strength": {"loguniform": [0.3, 6.0]},
        "temperature": {"uniform": [0.3, 1.0]},
        "temperature_end": 0.1,
    }
    train = {"steps": 500, "batch_size": batch_size, "lr": 0.03}
    pretrain = {"batch_size": batch_size, "lr": 0.001}
    sweep = {
        "name": name,
        "samples": 16,
        "objectives": {"val_accuracy": "max", "sparsity": "max"},
        "sampler": "tpe",
    }
    of_gate = {"family": " | ".join(FAMILIES)}
    of_sweep = {"objectives": f"any of {', '.join(OBJECTIVES)}"}
    lines = [
        *_comment(
            "A search space: in the place of any value may stand a distribution, {uniform: [a, b]},"
            " {loguniform: [a, b]}, {int: [a, b]} or {choice: [...]}. What is commented out has"
            " the value that it has if it is left out."
        ),
        "",
        *_settings(TrialConfig, chosen, about, indent=""),
        *_section("gate", GaussianGate, gate, of_gate),
        *_section("train", Training, train, {}),
        *_section("pretrain", Pretraining, pretrain, {}),
        *_section("replicates", Replicates, {"init": 2, "data": 2, "gate": 1}, {}),
        *_section("retrain", Retraining, {}, {}),
        *_section("sweep", SweepSettings, sweep, of_sweep),
        *_section("resources", Resources, {"cpus": 1, "gpus": 0}, {}, indent="  "),
    ]
    return "\n".join(lines) + "\n"


def _section(
    name: str,
    section: type[Section],
    chosen: Mapping[str, Any],
    about: Mapping[str, str],
    *,
    indent: str = "",
) -> Iterator[str]:
    """A block of settings under a comment; all of it commented out where nothing is chosen."""
    doc = _ABOUT.get(name) or " ".join((section.__doc__ or "").split("\n\n")[0].split())
    yield ""
    yield from _comment(doc, indent=indent)
    yield f"{indent}{name}:" if chosen else f"{indent}# {name}:"
    for line in _settings(section, chosen, about, indent=f"{indent}  "):
        yield line if chosen else f"# {line.replace('# ', '', 1)}"


def _settings(
    section: type[Section], chosen: Mapping[str, Any], about: Mapping[str, str], *, indent: str
) -> Iterator[str]:
    """A line for each setting that is a single value: those chosen, then the others' defaults."""
    others = [name for name in section.model_fields if name not in chosen]
    for name in (*chosen, *others):
        field = section.model_fields[name]
        value = chosen.get(name, field.get_default(call_default_factory=True))
        if isinstance(value, Section):
            continue  # it stands by itself
        written = f"{name}: {_yaml(value)}"
        if name not in chosen:
            written = f"# {written}"
        options = " | ".join(map(str, get_args(field.annotation))) if field.annotation else ""
        is_literal = "Literal" in str(field.annotation)
        told = about.get(name) or field.description or (options if is_literal else "")
        yield f"{indent}{written:<{_COLUMN - len(indent)}}  # {told}" if told else indent + written


def _comment(text: str, *, indent: str = "") -> list[str]:
    mark = f"{indent}# "
    return textwrap.wrap(
        text, _WIDTH, initial_indent=mark, subsequent_indent=mark, break_on_hyphens=False
    )


def _yaml(value: object) -> str:
    """A plain value in YAML's flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str) and not value.isidentifier():
        plain = all(part.replace("-", "").replace("_", "").replace(".", "").isalnum()
                    for part in value.split(":"))  # fmt: skip
        return value if plain and not value[0].isdigit() else json.dumps(value)
    return value if isinstance(value, str) else json.dumps(value)
