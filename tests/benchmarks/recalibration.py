"""After how many steps a derived network's running statistics score it as recalibrated ones do: `retrain.MOST_INITIAL`.

    python -m tests.benchmarks.recalibration

One training on digits; after each epoch the same weights are scored by both. Prints a Markdown table.
"""

from __future__ import annotations

from unittest import mock

import torch

from ddarts_core.data.sets import load_train
from ddarts_core.data.splits import hold_out
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.loops.recalibration import initial_share
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.settings.retrain_settings import RetrainConfig
from ddarts_core.training import retrain

EDGES = ((2, 0, "skip_connect"), (2, 1, "sep_conv_3x3"), (3, 2, "sep_conv_3x3"), (3, 0, "max_pool_3x3"))
GENOTYPE = Genotype((Cell(tuple(Edge(target, source, op) for target, source, op in EDGES), (2, 3)),) * 3, (1, 2))


def main() -> None:
    """Train and print."""
    torch.set_num_threads(1)
    info, images = load_train(DataConfig(name="digits"))
    train, held_out = hold_out(images, 0.2, 0, info.classes)
    config = RetrainConfig(channels=8, epochs=24, batch_size=128, lr=0.1)
    run = retrain.Retrain(config, GENOTYPE, info, train, None, 0)
    print("| steps | initial share | accuracy, running | accuracy, recalibrated |\n|---|---|---|---|")
    for record in run.records():
        steps = (record.epoch + 1) * (len(train) // config.batch_size)
        scores = []
        for most in (2.0, -1.0):  # never recalibrated, and always
            with mock.patch.object(retrain, "MOST_INITIAL", most):
                scores.append(f"{run.evaluate(held_out).metrics['accuracy']:.3f}")
        print(f"| {steps} | {initial_share(steps):.0e} | {' | '.join(scores)} |", flush=True)


if __name__ == "__main__":
    main()
