"""What the weights of a supernet say of genotypes that were not searched for (one-shot accuracy; Bender et al. 2018).

If a search is to find good networks by its supernet, a genotype that does well with the supernet's weights should do
well when it is trained by itself. A truth (`ddarts truth`) shows whether it does.
"""

from __future__ import annotations

import random

import torch

from ..settings.config import enumeration_of
from ..settings.warm_start import encode
from ..supernets.supernet import batch_statistics
from .search import Search


def probed(search: Search) -> dict[str, float] | None:
    """One-shot accuracies of as many genotypes as `search.probe` says, by their numbers; None if it says none.

    The genotypes are drawn from the seed, each at most once.
    """
    wanted = search.config.search.probe
    if not wanted:
        return None
    every = enumeration_of(search.config)
    draw = random.Random(f"one-shot {search.config.seed}")
    numbers = sorted(draw.sample(range(len(every)), min(wanted, len(every))))
    return {str(number): one_shot_accuracy(search, number) for number in numbers}


@torch.no_grad()
def one_shot_accuracy(search: Search, number: int) -> float:
    """Accuracy of a genotype of the space with the supernet's weights, on the images of the alphas, a fraction of 1.

    Gates are 1 for its operations and 0 for all others. Batch normalisation uses the batch's own statistics: running
    ones are those of the mixture, not of this genotype. The search is left as it was.

    Args:
        search: a search whose cells each have gates of their own.
        number: the number of the genotype, by `config.enumeration_of`.
    """
    config = search.config.search
    genotype = enumeration_of(search.config)[number]
    chosen = torch.tensor(encode(genotype, config.space, config.steps), dtype=torch.float32, device=search.device)
    gates = torch.zeros_like(search.gates)  # operations that an edge adds to those of the space stay off
    gates[..., : chosen.shape[-1]] = chosen
    right = total = 0
    training = search.net.training
    with batch_statistics(search.net.train()):
        for images, labels in search.splits.alphas.batches(config.batch_size, info=search.info, device=search.device):
            search.execution.begin_step()
            right += int((search.net(images, gates).argmax(1) == labels).sum())
            total += len(labels)
    search.net.train(training)
    return right / total
