"""What cannot be compared is a sentence, before anything is loaded."""

from __future__ import annotations

import json

import pytest

from ticketsweep.errors import ExchangeError, UserError
from ticketsweep.planning import load_data
from ticketsweep.results.function import ALIGN, CONNECTIVITY, KINDS, PREDICTIONS, TRANSFER
from ticketsweep.revisit.comparing import compare_trial
from ticketsweep.revisit.jobs import Asked, Job, config_now, jobs_of, wants_gpu
from ticketsweep.store.database import Database


def asked_of(storage, rows, *kinds: str, steps: int | None = None) -> list[str]:
    """What is said; there must be no job."""
    said: list[str] = []
    assert jobs_of(Database(storage), rows, Asked(kinds, steps), warn=said.append) == []
    return said


def test_a_single_replicate_has_itself_alone(storage, run_fast, job_of) -> None:
    run_fast(storage, replicates={"init": 1, "data": 1, "gate": 1}, rewind_step=0)
    rows = Database(storage).trials("s").to_pylist()
    said = asked_of(storage, rows, PREDICTIONS, TRANSFER, ALIGN)
    assert [line.split("nothing for ")[1] for line in said] == [
        f"--{kind}: it has one ticket, and nothing to compare it with"
        for kind in (PREDICTIONS, TRANSFER, ALIGN)
    ]
    assert [len(work.pairs) for work in job_of(storage, CONNECTIVITY).works] == [1]


def test_what_has_nothing_to_compare_says_why(stored) -> None:
    (row,) = Database(stored).trials("s").to_pylist()
    imported = {**row, "config": json.dumps({"imported": {"files": ["a"]}})}
    (line,) = asked_of(stored, [imported], *KINDS)
    assert "left out, since imported: the weights are not in the database" in line
    (line,) = asked_of(stored, [{**row, "granularity": "neuron"}], ALIGN)
    assert "gates are those of whole units" in line
    (line,) = asked_of(stored, [{**row, "trial_id": "lost"}], PREDICTIONS)
    assert "no replicate with masks" in line
    assert asked_of(stored, [], *KINDS) == asked_of(stored, [row]) == []


def test_a_reason_is_told_once_however_many_trials_it_has(stored) -> None:
    (row,) = Database(stored).trials("s").to_pylist()
    lost = [{**row, "trial_id": f"t{at}"} for at in range(50)]
    (line,) = asked_of(stored, lost, PREDICTIONS)
    assert line.startswith("50 trials (t0, t1, t2, …): nothing for --predictions: it has no")


def test_other_retraining_makes_other_barriers(storage, run_fast, job_of, ended) -> None:
    run_fast(storage, retrain={"steps": 0}, replicates={"init": 1, "data": 1, "gate": 1})
    rows = Database(storage).trials("s").to_pylist()

    def asked(*settings: str) -> list[Job]:
        asks = Asked((CONNECTIVITY,), 2, settings)
        return jobs_of(Database(storage), rows, asks, warn=pytest.fail)

    (job,) = asked("retrain.lr=0.01")
    config = config_now(job.row, ["retrain.lr=0.01"])
    ended(compare_trial(storage, job, config=config, dataset=load_data(config)))
    assert asked("retrain.lr=0.01", "device=cpu") == []
    (other,) = asked()
    assert other.works[0].settings["lr"] != 0.01


def test_steps_of_retraining_must_be_known(stored) -> None:
    (row,) = Database(stored).trials("s").to_pylist()
    config = json.loads(row["config"]) | {"retrain": {"steps": 0}}
    without = {**row, "config": json.dumps(config)}
    with pytest.raises(UserError, match=r"--retrain-steps must be given .* --retrain-steps 40,"):
        asked_of(stored, [without], CONNECTIVITY)
    (job,) = jobs_of(Database(stored), [without], Asked((CONNECTIVITY,), 7), warn=pytest.fail)
    assert (job.retrain_steps, job.works[0].settings["steps"]) == (7, 7)


def test_a_gpu_is_wanted_where_the_trial_had_one_or_where_it_is_asked_for(stored) -> None:
    (row,) = Database(stored).trials("s").to_pylist()
    for device, ran_on, wanted in [
        ("auto", "cpu", False),
        ("auto", "NVIDIA H100", True),
        ("cpu", "NVIDIA H100", False),
        ("cuda", "cpu", True),
    ]:
        config = config_now(row, [f"device={device}"])
        assert wants_gpu(config, {**row, "device": ran_on}) == wanted


def test_a_trial_that_would_be_another_today_is_refused(stored, job_of, ended) -> None:
    job = job_of(stored, PREDICTIONS)
    config = config_now(job.row, ["seed=1"])
    with pytest.raises(ExchangeError, match="a setting has changed since"):
        ended(compare_trial(stored, job, config=config, dataset=load_data(config)))
