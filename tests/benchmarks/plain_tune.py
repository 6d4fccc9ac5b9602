"""The plain way to do the same work: a Ray Tune script with one trial per configuration and seed.

Written as a user would write it from Tune's and torch's documentation: gates in autograd, one seed
a process. The network, data, steps, schedules and evaluation are those of `digits_sweep.yaml`.
"""

from __future__ import annotations

import argparse
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from ray import tune
from sklearn.datasets import load_digits

STEPS, BATCH, WIDTHS = 500, 64, (64, 100, 50, 10)
STRENGTHS = (0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 4.5, 6.0)
SEEDS = 8


def train(config: dict) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(config["seed"])
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32) / 16
    images = (images - images.mean()) / images.std()
    labels = torch.tensor(labels)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test, validation, rest = order[:360], order[360:504], order[504:]

    weights = [
        torch.sign(torch.randn(out, fan_in, generator=generator)) * 1.5 * math.sqrt(2 / fan_in)
        for fan_in, out in itertools.pairwise(WIDTHS)
    ]
    mus = [torch.full_like(weight, 0.5, requires_grad=True) for weight in weights]
    gates = sum(mu.numel() for mu in mus)
    optimizer = torch.optim.Adam(mus, lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

    def forward(x: torch.Tensor, masks: list[torch.Tensor]) -> torch.Tensor:
        for index, (mask, weight) in enumerate(zip(masks, weights, strict=True)):
            x = F.linear(x, mask * weight)
            x = F.relu(x) if index + 1 < len(weights) else x
        return x

    def accuracy(rows: torch.Tensor) -> float:
        hard = [(mu > 0.5).float() for mu in mus]
        return (forward(images[rows], hard).argmax(1) == labels[rows]).float().mean().item()

    for step in range(STEPS):
        sigma = 0.5 * (0.1 / 0.5) ** (step / (STEPS - 1))
        rows = rest[torch.randint(len(rest), (BATCH,), generator=generator)]
        noisy = [
            torch.clamp(mu + sigma * torch.randn(mu.shape, generator=generator), 0, 1) for mu in mus
        ]
        penalty = sum(torch.special.ndtr(mu / 0.5).sum() for mu in mus) / gates
        loss = F.cross_entropy(forward(images[rows], noisy), labels[rows])
        optimizer.zero_grad()
        (loss + config["l0_strength"] * penalty).backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 42 == 0 and step + 1 < STEPS:
            tune.report({"val_accuracy": accuracy(validation)})
    with torch.no_grad():
        kept = np.concatenate([(mu > 0.5).numpy().ravel() for mu in mus])
    np.save("mask.npy", np.packbits(kept))
    tune.report(
        {
            "val_accuracy": accuracy(validation),
            "test_accuracy": accuracy(test),
            "sparsity": 1 - kept.mean(),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reuse-actors", action="store_true")
    parser.add_argument("--folder", required=True, help="where Tune keeps its results")
    options = parser.parse_args()
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={
            "l0_strength": tune.grid_search(list(STRENGTHS)),
            "seed": tune.grid_search(list(range(SEEDS))),
        },
        tune_config=tune.TuneConfig(max_concurrent_trials=2, reuse_actors=options.reuse_actors),
        run_config=tune.RunConfig(storage_path=options.folder),
    )
    results = tuner.fit()
    accuracies = [result.metrics["test_accuracy"] for result in results]
    sparsities = [result.metrics["sparsity"] for result in results]
    print(
        f"{len(accuracies)} trainings, mean test accuracy {np.mean(accuracies):.3f}, "
        f"mean sparsity {np.mean(sparsities):.3f}"
    )


if __name__ == "__main__":
    main()
