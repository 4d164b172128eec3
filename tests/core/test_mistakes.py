"""The mistakes that a network is surest about: against a sort of all, and as a file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddarts_core.data.images import DataInfo
from ddarts_core.ground.errors import UserError
from ddarts_core.loops.mistakes import MOST, Surest, read_mistakes, surest, write_mistakes

INFO = DataInfo("own", 3, 3, 8, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), ("cat", "<dog>", "cow"))


def test_the_surest_mistakes_of_all_batches_are_kept_as_pictures(tmp_path: Path) -> None:
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 3, 8, 8), generator=drawn)
    labels, logits = torch.randint(0, 3, (60,), generator=drawn), torch.randn(60, 3, generator=drawn)
    images = (pixels / 255 - torch.tensor(INFO.mean)[:, None, None]) / torch.tensor(INFO.std)[:, None, None]
    kept = Surest(INFO)
    for start in range(0, 60, 7):
        part = slice(start, start + 7)
        kept.see(images[part], labels[part], logits[part])

    shares = np.exp(logits.double().numpy()) / np.exp(logits.double().numpy()).sum(1, keepdims=True)
    wrong = [place for place in range(60) if shares[place].argmax() != labels[place]]
    expected = sorted(wrong, key=lambda place: -shares[place].max())[:MOST]
    assert len(wrong) > MOST == len(kept.found)
    for one, place in zip(kept.found, expected, strict=True):
        assert (one.true, one.predicted) == (int(labels[place]), int(shares[place].argmax()))
        assert one.probability == pytest.approx(shares[place].max(), abs=1e-6)
        seen = np.asarray(Image.open(io.BytesIO(one.png)))
        np.testing.assert_array_equal(seen, pixels[place].permute(1, 2, 0).numpy())
    assert surest([*kept.found[5:], *kept.found[:5]]) == list(kept.found)

    write_mistakes(tmp_path / "m.json", INFO.classes, kept.found)
    classes, found = read_mistakes(tmp_path / "m.json")
    assert classes == INFO.classes and [one.png for one in found] == [one.png for one in kept.found]
    (tmp_path / "m.json").write_text((tmp_path / "m.json").read_text().replace('"true": 0', '"true": 7'))
    with pytest.raises(UserError, match="is of no class"):
        read_mistakes(tmp_path / "m.json")
