from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ticketsweep.train.gates.kernels import choose, kernels_for, loops, noise
from ticketsweep.train.gates.kernels.compiled import CompiledKernels
from ticketsweep.train.gates.kernels.plain import PlainKernels

CPU = torch.device("cpu")
CaseOf = Callable[..., object]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    widths=st.lists(st.integers(1, 60), min_size=2, max_size=4),
    seeds=st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=3),
    step=st.integers(0, 2**32 - 1),
)
def test_the_compiled_step_equals_the_plain_one(
    widths: list[int], seeds: list[int], step: int, case_of: CaseOf
) -> None:
    case = case_of(widths, seeds)
    wanted = case.results(PlainKernels(case.layout, seeds, CPU), step=step)
    found = case.results(CompiledKernels(case.layout, seeds), step=step)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_threads_share_the_work_and_change_nothing(
    case_of: CaseOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of([700, 300, 10], [5, 6, 7])
    alone = case.results(CompiledKernels(case.layout, case.seeds))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    shared = case.results(CompiledKernels(case.layout, case.seeds))
    for name, value in alone.items():
        assert torch.equal(shared[name], value), name


@pytest.mark.parametrize("kind", [CompiledKernels, PlainKernels])
def test_a_replicate_that_diverged_stays_so_and_leaves_the_others_alone(
    kind: Callable[..., object], case_of: CaseOf
) -> None:
    case = case_of([30, 20], [1, 2])
    kernels = kind(case.layout, case.seeds, *([CPU] if kind is PlainKernels else []))
    sound = case.results(kernels)
    case.values[0] = torch.nan
    for name, value in case.results(kernels).items():
        assert torch.isnan(value[0]).all(), name
        assert torch.equal(value[1], sound[name][1]), name


def test_transposed_gradients_are_read_as_they_are_meant(case_of: CaseOf) -> None:
    case = case_of([30, 20], [1, 2])
    (layer,) = case.layout.split(case.gradients)
    turned = layer.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    found = []
    for gradient in (layer, turned):
        gated = torch.empty_like(case.values)
        kernels = CompiledKernels(case.layout, case.seeds)
        kernels.gaussian(case.values, case.weights, gated, step=0, sigma=0.4)
        kernels.gaussian_gradient(
            (gradient,), case.values, case.weights, gated, sigma=0.4, scale=case.scale
        )
        found.append(gated)
    assert torch.equal(*found)


def test_the_fast_path_is_what_is_used_here() -> None:
    assert choose("cpu").name == "numba"
    plain = choose("mps")
    assert plain.name == "plain"
    assert "mps" in plain.why


INTERPRETED = """
import importlib.util, sys, torch
path = sys.argv[1]
spec = importlib.util.spec_from_file_location("cases", path)
cases = importlib.util.module_from_spec(spec)
sys.modules["cases"] = cases
spec.loader.exec_module(cases)
from ticketsweep.train.gates.kernels.fused import FusedKernels
from ticketsweep.train.gates.kernels.plain import PlainKernels
for widths, seeds in (([40, 30, 3], [3, 2**52 + 1, 7]), ([1, 1], [0])):
    case = cases.make_case(widths, seeds)
    wanted = case.results(PlainKernels(case.layout, seeds, torch.device("cpu")))
    found = case.results(FusedKernels(case.layout, seeds, torch.device("cpu")))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
    case.values[0] = torch.nan
    found = case.results(FusedKernels(case.layout, seeds, torch.device("cpu")))
    assert all(torch.isnan(value[0]).all() for value in found.values())
"""


def test_the_kernels_for_cuda_equal_the_plain_step_in_tritons_interpreter() -> None:
    """Here they are interpreted, on tensors of the CPU; `test_cuda.py` runs them on a device."""
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    run = subprocess.run(
        [sys.executable, "-c", INTERPRETED, str(Path(__file__).with_name("conftest.py"))],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ticketsweep.train.gates.kernels import fused
types = {"step": "i32", "sigma": "fp32", "size": "i32", "seeds": "*i64", "cold": "fp32",
         "low": "fp32", "high": "fp32"}
for kernel in (fused._gaussian, fused._concrete):
    assert [p.do_not_specialize for p in kernel.params if p.name == "step"] == [True]
    signature = {name: types.get(name, "*fp32") for name in kernel.arg_names}
    triton.compile(ASTSource(kernel, signature, {}), target=GPUTarget("cuda", 90, 32))
"""


def test_the_kernels_for_cuda_compile_and_take_any_step_as_a_number() -> None:
    """For a device that need not be here; a step of 1 must not become a part of the kernel."""
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    run = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_constants_of_the_loops_are_those_of_the_formula() -> None:
    assert (loops.COUNTERS, loops.CHUNK, loops.ROUNDS) == (
        noise.COUNTERS, noise.CHUNK, noise.ROUNDS
    )  # fmt: skip
    assert (int(loops._LEFT), int(loops._RIGHT)) == noise.MULTIPLIERS
    assert (int(loops._WEYL_0), int(loops._WEYL_1)) == noise.WEYL


@pytest.mark.parametrize("variables", [{"NUMBA_DISABLE_JIT": "1"}])
def test_numba_that_does_not_compile_is_not_used(variables: dict[str, str]) -> None:
    code = "from ticketsweep.train.gates.kernels import choose; print(choose('cpu'))"
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "plain" in run.stdout
    assert "NUMBA_DISABLE_JIT is set" in run.stdout
    assert run.stderr.count("gates are not compiled on cpu") == 1


WITHOUT = """
import sys
sys.modules["numba"] = None
import torch
from ticketsweep.train.gates.kernels import choose, kernels_for
from ticketsweep.train.pack import Layout
assert choose("cpu").name == "plain", choose("cpu")
assert "numba" in choose("cpu").why
layout = Layout(("w",), ((2, 3),), (6,))
print(type(kernels_for(layout, [1], torch.device("cpu"))).__name__)
"""


def test_without_numba_the_plain_step_is_used() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "PlainKernels", run.stderr


def test_kernels_are_those_chosen(case_of: CaseOf) -> None:
    case = case_of([3, 2], [1])
    assert isinstance(kernels_for(case.layout, [1], CPU), CompiledKernels)
    meta = kernels_for(case.layout, [1], torch.device("meta"))
    assert isinstance(meta, PlainKernels)
