"""The laws of data sets."""

from __future__ import annotations

import tempfile
from itertools import islice

from ..data.images import DataInfo, Images, Unfit
from ..data.sets import DATASETS, Published, class_counts, data_info, load_test, load_train
from ..ground.errors import UserError
from ..settings.data_settings import DataConfig
from .law import Broken, hold


def states_its_facts(name: str) -> None:
    """Check that the facts of a data set fit each other, and that without its files it says which files it wants."""
    entry = DATASETS[name]
    with tempfile.TemporaryDirectory() as folder:
        config = DataConfig(name=name, root=f"{folder}/nowhere")
        try:
            info, images = load_train(config)
        except UserError as error:
            told = isinstance(error, Unfit) or entry.files in str(error)
            hold(told, f"without its files it says {str(error)!r}, which lacks {entry.files!r}")
            if not isinstance(entry, Published):
                return
            info = data_info(config)
        else:
            shape = list(next(images.batches(1, info=info))[0].shape[1:])
            wanted = [info.channels, info.image_size, info.image_size]
            hold(shape == wanted, f"its images are {shape}, and its facts say {wanted}")
    hold(len(info.classes) == info.num_classes, f"it names {len(info.classes)} classes of {info.num_classes}")
    hold(len(info.mean) == len(info.std) == info.channels, "it has not one mean and one deviation for each channel")
    fit = all(0 < mean < 1 for mean in info.mean) and all(std > 0 for std in info.std)
    hold(fit, "its means or deviations are not those of pixels in 0..1")


#: Images of each split that are compared.
MOST_COMPARED = 2000


def gives_its_images(name: str) -> None:
    """Check that a data set gives images of every class, the same at each reading, and others for the test.

    A data set that wants files is not checked: `ddarts data` looks at its images. Of large sets the first
    `MOST_COMPARED` images are compared.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = DataConfig(name=name, root=f"{folder}/nowhere", num_workers=0)
        try:
            info, train = load_train(config)
        except Unfit as error:
            raise Broken(str(error)) from error
        except UserError:
            return
        test = load_test(config)
        for split, images in (("training", train), ("test", test)):
            absent = [name for name, count in zip(info.classes, class_counts(info, images), strict=True) if not count]
            hold(not absent, f"it has no {split} images of {', '.join(absent)}")
        known, tested = _seen(train, info), _seen(test, info)
        same = known == _seen(load_train(config)[1], info) and tested == _seen(load_test(config), info)
        hold(same, "it gives other images, or another order of them, at every reading")
        hold(not set(tested) <= set(known), "its test images are training images")


def _seen(images: Images, info: DataInfo) -> list[tuple[bytes, int]]:
    """Return the first images of a set and their labels, in their order."""
    batches = islice(images.batches(100, info=info), MOST_COMPARED // 100)
    return [(x.numpy().tobytes(), int(y)) for batch in batches for x, y in zip(*batch, strict=True)]
