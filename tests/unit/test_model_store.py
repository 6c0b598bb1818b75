from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from alertrec.artifacts import CARD
from alertrec.errors import ModelStoreError
from alertrec.model_store import ModelStore

CARD_OF_V1 = {"algorithm": "knn", "parameters": {"n_neighbors": 5}}
ARRAYS = {
    "mean": np.arange(4.0),
    "labels": np.eye(3, dtype=bool),
    "user_ids": np.array(["ä", "b"]),
    "none": np.zeros((0, 2)),
}
NAMES = [CARD, *(f"{name}.npy" for name in ARRAYS)]


class Location:
    """Where versions lie, and a hand to damage them."""

    def __init__(self, url: str, cache: Path) -> None:
        self.url, self.cache = url, cache
        self.fs, self.root = fsspec.url_to_fs(url)
        self.store = ModelStore(url, cache)

    def another_machine(self, cache: Path) -> ModelStore:
        return ModelStore(self.url, cache)

    def files(self) -> list[str]:
        """Return what lies anywhere in the location, hidden or not, without the path of the location."""
        return (
            sorted(path.removeprefix(self.root).strip("/") for path in self.fs.find(self.root))
            if (self.fs.exists(self.root))
            else []
        )

    def change(self, name: str, how: Any) -> None:
        path = f"{self.root}/v1/{name}"
        content = bytearray(self.fs.cat_file(path))
        self.fs.pipe_file(path, bytes(how(content)))

    def remove(self, name: str) -> None:
        self.fs.rm(f"{self.root}/v1/{name}")


@pytest.fixture(params=["path", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    url = str(tmp_path / "store") if request.param == "path" else f"memory://{tmp_path.name}"
    place = Location(url, tmp_path / "cache")
    yield place
    if request.param == "memory" and place.fs.exists(place.root):
        place.fs.rm(place.root, recursive=True)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Location]:
    place = Location(f"memory://{tmp_path.name}", tmp_path / "cache")
    yield place
    if place.fs.exists(place.root):
        place.fs.rm(place.root, recursive=True)


def save(location: Location, version: str = "v1") -> str:
    return location.store.save(version, CARD_OF_V1, ARRAYS)


def flipped(content: bytearray, bit: int = -9) -> bytearray:
    content[bit // 8] ^= 1 << bit % 8
    return content


def test_what_was_saved_is_loaded(location: Location, tmp_path: Path):
    sha256 = save(location)
    assert len(sha256) == 64
    assert location.files() == sorted(f"v1/{name}" for name in NAMES)
    for store in (location.store, location.another_machine(tmp_path / "other")):
        card, arrays = store.load("v1", sha256=sha256)
        assert CARD_OF_V1.items() <= card.items()
        assert set(arrays) == set(ARRAYS)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, ARRAYS[name])
            assert array.dtype == ARRAYS[name].dtype
            assert not array.flags.writeable


def test_a_second_load_reads_the_copy(in_memory: Location):
    sha256 = save(in_memory)
    in_memory.store.load("v1", sha256=sha256)
    in_memory.fs.rm(f"{in_memory.root}/v1", recursive=True)
    assert in_memory.store.load("v1", sha256=sha256)[0]["algorithm"] == "knn"


def test_versions_never_change(location: Location):
    sha256 = save(location)
    with pytest.raises(ModelStoreError, match=r"v1.*exists already"):
        location.store.save("v1", CARD_OF_V1, {"mean": np.zeros(4)})
    np.testing.assert_array_equal(location.store.load("v1", sha256=sha256)[1]["mean"], ARRAYS["mean"])


def test_versions_lie_beside_each_other(location: Location):
    first = save(location)
    second = location.store.save("v2", CARD_OF_V1, {"mean": np.zeros(4)})
    assert location.store.load("v1", sha256=first)[1]["mean"].tolist() == [0, 1, 2, 3]
    assert location.store.load("v2", sha256=second)[1]["mean"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "damage", [flipped, lambda content: flipped(content, 3), lambda content: content[:-1], lambda _: b""],
    ids=["a bit at the end", "a bit at the start", "a byte is missing", "all bytes are missing"],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_name(location: Location, name: str, damage: Any):
    sha256 = save(location)
    location.change(name, damage)
    with pytest.raises(ModelStoreError, match=name) as caught:
        location.store.load("v1", sha256=sha256)
    assert caught.value.version == "v1"


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_refused_by_name(location: Location, name: str):
    sha256 = save(location)
    location.remove(name)
    with pytest.raises(ModelStoreError, match=name):
        location.store.load("v1", sha256=sha256)


def test_a_version_that_was_never_saved_is_refused(location: Location):
    with pytest.raises(ModelStoreError, match="v9"):
        location.store.load("v9", sha256="0" * 64)


def test_another_model_under_the_same_name_is_refused(location: Location):
    save(location)
    with pytest.raises(ModelStoreError, match="checksum"):
        location.store.load("v1", sha256="0" * 64)


def test_what_was_refused_can_be_loaded_once_it_is_mended(location: Location):
    sha256 = save(location)
    location.change("mean.npy", flipped)
    with pytest.raises(ModelStoreError):
        location.store.load("v1", sha256=sha256)
    location.change("mean.npy", flipped)
    assert location.store.load("v1", sha256=sha256)[1]["mean"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_copy_is_fetched_again(in_memory: Location, name: str, damage: str):
    sha256 = save(in_memory)
    in_memory.store.load("v1", sha256=sha256)
    copy = in_memory.cache / "v1" / name
    copy.unlink() if damage == "missing" else copy.write_bytes(flipped(bytearray(copy.read_bytes())))
    assert in_memory.store.load("v1", sha256=sha256)[1]["mean"].tolist() == [0, 1, 2, 3]
    assert sorted(path.name for path in in_memory.cache.iterdir()) == ["v1"]


def test_a_failed_fetch_leaves_no_part_in_the_cache(in_memory: Location):
    sha256 = save(in_memory)
    in_memory.remove("mean.npy")
    with pytest.raises(ModelStoreError):
        in_memory.store.load("v1", sha256=sha256)
    assert list(in_memory.cache.iterdir()) == []


@pytest.mark.parametrize("n_written", [0, 1, 3])
def test_a_failed_save_leaves_nothing_behind(location: Location, monkeypatch: pytest.MonkeyPatch, n_written: int):
    written: list[str] = []

    def until_full(write: Any) -> Any:
        def attempt(*arguments: Any, **options: Any) -> Any:
            if len(written) == n_written:
                raise OSError(28, "No space left on device")
            written.append(str(arguments[0]))
            return write(*arguments, **options)

        return attempt

    monkeypatch.setattr(
        np, "save", until_full(np.save) if location.root.startswith(str(location.cache.parent)) else np.save
    )
    monkeypatch.setattr(type(location.fs), "put_file", until_full(type(location.fs).put_file))
    with pytest.raises(ModelStoreError, match=r"v1.*No space left") as caught:
        save(location)
    assert caught.value.__cause__ is not None
    monkeypatch.undo()
    assert location.files() == []
    assert location.store.load("v1", sha256=save(location))[0]["algorithm"] == "knn"


def test_a_delete_removes_the_version_and_its_copy_and_may_come_twice(location: Location):
    sha256 = save(location)
    location.store.load("v1", sha256=sha256)
    location.store.delete("v1")
    location.store.delete("v1")
    assert location.files() == []
    with pytest.raises(ModelStoreError):
        location.store.load("v1", sha256=sha256)


def test_a_card_with_a_number_that_json_lacks_is_not_written(location: Location):
    with pytest.raises(ValueError, match="JSON"):
        location.store.save("v1", {"metrics": {"auc": float("nan")}}, ARRAYS)
    assert location.files() == []


def test_an_array_of_objects_is_not_written(location: Location):
    with pytest.raises(ValueError, match="allow_pickle"):
        location.store.save("v1", CARD_OF_V1, {"mean": np.array([object()])})
    assert location.files() == []


def test_digests_depend_on_the_content_alone(location: Location):
    # Two machines that store the same model must agree on what was stored.
    assert save(location, "v1") == save(location, "v2")


def test_the_card_is_uploaded_last_so_that_no_reader_meets_half_a_version(
    in_memory: Location, monkeypatch: pytest.MonkeyPatch
):
    put, names = type(in_memory.fs).put_file, []

    def record(fs: Any, source: str, target: str, **options: Any) -> None:
        names.append(target.rpartition("/")[2])
        put(fs, source, target, **options)

    monkeypatch.setattr(type(in_memory.fs), "put_file", record)
    save(in_memory)
    assert sorted(names) == sorted(NAMES)
    assert names[-1] == CARD
