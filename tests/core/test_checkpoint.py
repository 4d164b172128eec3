"""A checkpoint comes back bit for bit, or is refused: whatever was cut off, altered or smuggled in."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddarts_core.ground.errors import UserError
from ddarts_core.loops import checkpoint

MARK = b"ddarts-sha256:"


def _state() -> dict[str, Any]:
    return {
        "epoch": 3,
        "name": "search",
        "none": None,
        "nested": {"list": [1, 2.5, (3, True)]},
        "weights": torch.linspace(-1, 1, 7),
        "empty": torch.zeros(0, 3),
        "channels_last": torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).contiguous(
            memory_format=torch.channels_last
        ),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "buffer": torch.tensor([1, 2], dtype=torch.int64),
    }


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "good.pt"
    checkpoint.save(path, _state())
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "checkpoint.pt"


@pytest.mark.parametrize("packed", [False, True])
def test_round_trip_is_exact(tmp_path: Path, packed: bool) -> None:
    checkpoint.save(tmp_path / "new" / "c.pt", _state(), packed=packed)
    loaded = checkpoint.load(tmp_path / "new" / "c.pt")
    expected = _state()
    assert list(loaded) == list(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert loaded[key].dtype == value.dtype
            assert loaded[key].stride() == value.stride()
            assert torch.equal(loaded[key], value)
        else:
            assert loaded[key] == value


def test_packed_tensors_are_each_their_own(tmp_path: Path) -> None:
    """A tensor that kept the flat one alive would keep the whole state in memory."""
    state = {"a": torch.ones(3), "b": [torch.zeros(2)], "part": torch.arange(12.0).view(3, 4)[:, 1]}
    checkpoint.save(tmp_path / "c.pt", state, packed=True)
    loaded = checkpoint.load(tmp_path / "c.pt")
    loaded["a"].fill_(5)
    assert loaded["b"][0].tolist() == [0, 0]
    assert loaded["part"].tolist() == [1, 5, 9]
    assert loaded["part"].untyped_storage().nbytes() == 12


def test_an_optimiser_in_the_state_comes_back(tmp_path: Path) -> None:
    net = torch.nn.Linear(2, 2)
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    checkpoint.save(tmp_path / "c.pt", {"net": net.state_dict(), "optimiser": optimiser.state_dict()})
    loaded = checkpoint.load(tmp_path / "c.pt")
    again = torch.optim.Adam(net.parameters())
    again.load_state_dict(loaded["optimiser"])
    assert torch.equal(again.state[net.weight]["exp_avg"], optimiser.state[net.weight]["exp_avg"])


def test_plain_torch_reads_it_too(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(content)
    assert torch.load(tmp_path / "c.pt", weights_only=True)["epoch"] == 3


@given(data=st.data())
def test_every_truncation_is_detected(data: st.DataObject, content: bytes, scratch: Path) -> None:
    scratch.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        checkpoint.load(scratch)


@given(data=st.data())
def test_every_altered_byte_is_detected(data: st.DataObject, content: bytes, scratch: Path) -> None:
    where = data.draw(st.integers(0, len(content) - 1))
    altered = bytearray(content)
    altered[where] ^= data.draw(st.integers(1, 255))
    scratch.write_bytes(altered)
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        checkpoint.load(scratch)


@given(extra=st.binary(min_size=1, max_size=100))
def test_appended_bytes_are_detected(extra: bytes, content: bytes, scratch: Path) -> None:
    scratch.write_bytes(content + extra)
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        checkpoint.load(scratch)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()], ids=["missing", "folder"])
def test_what_cannot_be_read_is_a_mistake(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"cannot read checkpoint .*c\.pt"):
        checkpoint.load(tmp_path / "c.pt")


class _Attack:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def _sealed(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue() + MARK + hashlib.sha256(buffer.getvalue()).hexdigest().encode()


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(_sealed({"state": _Attack(tmp_path / "attacked")}))
    with pytest.raises(UserError, match="does not hold plain data"):
        checkpoint.load(tmp_path / "c.pt")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("value", [b"junk", b""])
def test_sealed_junk_is_refused(value: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(value + MARK + hashlib.sha256(value).hexdigest().encode())
    with pytest.raises(UserError, match="does not hold plain data"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_state_is_a_dictionary(tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(_sealed([1]))
    with pytest.raises(UserError, match="holds a list"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_failed_save_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, {"epoch": 1})

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"epoch": 2})
    assert checkpoint.load(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]
