"""The stratified order of images from which splits are cut. Torch-free."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Seed of what must be the same in every study: the test share of digits and the images that `num_train` keeps.
FIXED_SEED = 20_240_229


def stratified_order(classes: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a random order of all images in which every stretch has the classes in about their overall shares.

    Image r (from 0) of a class of n images stands at (r + 1/2) / n. So a stretch of m images has m * share images of
    each class, give or take two, and classes of equal size take turns. The order is drawn from numpy's legacy
    generator, whose stream numpy promises never to change: the split of a stored study must not depend on a version.

    Args:
        classes: the class of each image, whole numbers [number].
        seed: the seed of the order.

    Returns:
        The positions of the images in the new order, int64 [number].
    """
    random = np.random.RandomState(seed % 2**32)
    order = random.permutation(len(classes))
    place = np.empty(len(classes))
    for label in np.unique(classes):
        members = order[classes[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    found: np.ndarray[Any, np.dtype[np.int64]] = order[np.argsort(place[order], kind="stable")].astype(np.int64)
    return found
