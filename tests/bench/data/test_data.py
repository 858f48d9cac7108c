"""Data sets: what is loaded, what is refused, and that content alone makes the hash."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.io import savemat

from bench.data.load import Dataset, load
from bench.errors import BenchError


def arrays(n: int = 20, classes: int = 3) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (n, 2, 5, 4), dtype=np.uint8),
        "y_train": rng.integers(0, classes, n),
        "x_test": rng.integers(0, 256, (7, 2, 5, 4), dtype=np.uint8),
        "y_test": rng.integers(0, classes, 7),
    }


def write(folder: Path, **changes: ArrayLike) -> Path:
    np.savez(folder / "mine.npz", allow_pickle=True, **{**arrays(), **changes})
    return folder / "mine.npz"


def test_digits_are_embedded_and_split_for_good(digits: Dataset) -> None:
    assert len(digits.x_train) + len(digits.x_held_out) == 1438 and len(digits.x_test) == 359
    assert len(digits.x_held_out) == 143
    assert digits.images.shape == (1, 8, 8) and digits.images.classes == 10
    assert digits.test_hash[:16] == "b4ea02b2252a16ce"
    assert int(digits.x_test.max()) == 255 and int(digits.x_test.min()) == 0


def test_own_npz_by_declaration(tmp_path: Path) -> None:
    data = load("mine", tmp_path, {"path": write(tmp_path), "mean": None, "std": None, "augment": True})
    assert data.images.shape == (2, 5, 4) and data.images.classes == 3 and data.augment
    pixels = np.asarray(arrays()["x_train"], np.float64) / 255
    np.testing.assert_allclose(data.images.mean, pixels.mean((0, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(data.images.std, pixels.std((0, 2, 3)), atol=1e-4)
    assert len(data.x_train) == 18 and len(data.x_held_out) == 2


def test_hash_is_of_the_content(tmp_path: Path) -> None:
    def hashes(**changes: ArrayLike) -> tuple[str, str]:
        data = load("mine", tmp_path, {"path": write(tmp_path, **changes)})
        return data.train_hash, data.test_hash

    first = hashes()
    assert hashes() == first
    changed = arrays()["x_test"].copy()
    changed[0, 0, 0, 0] ^= 1
    other = hashes(x_test=changed)
    assert other[0] == first[0] and other[1] != first[1]
    assert hashes(y_train=np.asarray(arrays()["y_train"])[::-1].copy())[0] != first[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": np.zeros((7, 2, 5, 4), np.float32)}, "x_test must be uint8"),
        ({"x_train": np.zeros((20, 5, 4), np.uint8)}, "x_train must be uint8"),
        ({"y_test": np.zeros(7, np.int32)}, "y_test must be int64"),
        ({"y_test": np.zeros(6, np.int64)}, "holds 7 images, y_test 6 labels"),
        ({"y_train": np.full(20, -1)}, "labels -1 to -1"),
        ({"x_test": np.zeros((7, 2, 5, 5), np.uint8)}, "differ in shape"),
    ],
)
def test_malformed_arrays_are_told(tmp_path: Path, changes: dict[str, NDArray[np.generic]], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        load("mine", tmp_path, {"path": write(tmp_path, **changes)})


def test_truncated_incomplete_and_pickled_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(BenchError, match="damaged"):
        load("mine", tmp_path, {"path": path})
    np.savez(path, x_train=arrays()["x_train"])
    with pytest.raises(BenchError, match="lacks y_train, x_test, y_test"):
        load("mine", tmp_path, {"path": path})
    write(tmp_path, y_test=np.array([{"a": 1}] * 7, dtype=object))
    with pytest.raises(BenchError, match="damaged"):
        load("mine", tmp_path, {"path": path})


def test_svhn_from_the_original_layout(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = {split: rng.integers(0, 256, (32, 32, 3, 12), dtype=np.uint8) for split in ("train", "test")}
    for split, x in pixels.items():
        savemat(tmp_path / f"{split}_32x32.mat", {"X": x, "y": np.array([[k % 10 + 1] for k in range(12)], np.uint8)})
    data = load("svhn", tmp_path)
    assert data.images.shape == (3, 32, 32) and data.augment
    assert torch.equal(data.x_test[3, 1], torch.from_numpy(pixels["test"][:, :, 1, 3].copy()))
    assert data.y_test.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    (tmp_path / "test_32x32.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut")
    with pytest.raises(BenchError, match=r"test_32x32\.mat is damaged"):
        load("svhn", tmp_path)


def test_torchvisions_arrays_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, folder: Path, train: bool, download: bool) -> None:
            assert download
            n = 30 if train else 10
            self.data = np.arange(n * 32 * 32 * 3, dtype=np.int64).reshape(n, 32, 32, 3).astype(np.uint8)
            self.targets = [k % 10 for k in range(n)]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    data = load("cifar10", tmp_path)
    assert data.x_test.shape == (10, 3, 32, 32)
    assert int(data.x_test[0, 2, 0, 1]) == Fake(tmp_path, False, True).data[0, 0, 1, 2]


def test_missing_data_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torchvision.datasets.MNIST", offline)
    with pytest.raises(BenchError, match=r"Network is unreachable.*put mnist\.npz there"):
        load("mnist", tmp_path)


def test_real_data_has_its_published_statistics(real_data: Path) -> None:
    for name, shape in (("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))):
        data = load(name, real_data)
        assert data.images.shape == shape and len(data.x_test) == 10_000
        pixels = torch.cat([data.x_train, data.x_held_out]).float() / 255
        torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.tensor(data.images.mean), atol=1e-3, rtol=0)
        torch.testing.assert_close(pixels.std((0, 2, 3)), torch.tensor(data.images.std), atol=1e-3, rtol=0)
