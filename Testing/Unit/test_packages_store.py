"""Packages on disk: what is saved is what is loaded, and every bad package is one sentence."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from LKSegmentLib import networks, packages  # noqa: E402
from LKSegmentLib.errors import InputError, RunError  # noqa: E402
from LKSegmentLib.packages import saving  # noqa: E402
from LKSegmentLib.packages.archive import open_archive  # noqa: E402

OPTIONS = {"feature_sizes": [8, 8, 8], "depths": [1, 1, 2]}


def tiny(in_channels: int = 1, out_channels: int = 3, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return networks.create("lk_click", in_channels=in_channels, out_channels=out_channels, **OPTIONS).eval()


def save(target: Path, trained: Any = None, **more: Any) -> Path:
    values: dict[str, Any] = {
        "network": "lk_click",
        "options": OPTIONS,
        "state_dict": (trained or tiny()).state_dict(),
        "labels": [
            {"name": "background"},
            {"name": "liver", "terminology": "SCT^10200004^Liver"},
            {"name": "spleen"},
        ],
        "spacing": (1.5, 1.5, 1.5),
        "window": (16, 16, 16),
        "intensity": {"rule": "ct", "window": [-160, 240]},
        "licence": "CC0-1.0",
    }
    values.update(more)
    return packages.save(target, **values)


def edit(folder: Path, **values: Any) -> Path:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def put_weights(folder: Path, content: bytes) -> Path:
    """Exchange the weights and make the manifest vouch for the new ones."""
    (folder / "weights.safetensors").write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return edit(folder, files={"weights.safetensors": record})


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return save(tmp_path / "abdomen")


@pytest.mark.parametrize("name", ["abdomen", "abdomen.zip"])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, name: str) -> None:
    network = tiny()
    path = save(tmp_path / name, network, title="Abdomen", trained_on="nothing", scores=[{"dice": 0.1}])
    loaded = packages.load(path)
    assert loaded.manifest.name == "abdomen"
    assert (loaded.manifest.in_channels, loaded.manifest.out_channels) == (1, 3)
    assert [label.name for label in loaded.manifest.segments] == ["liver", "spleen"]
    assert packages.verify(path) == loaded.manifest
    image = torch.rand(1, 1, 16, 16, 16)
    opened = loaded.network("cpu")
    assert loaded.network(torch.device("cpu")) is opened and not opened.training
    assert not any(parameter.requires_grad for parameter in opened.parameters())
    with torch.inference_mode():
        assert torch.equal(opened(image), network(image))
    for device in ("cuda:97", "nonsense"):
        with pytest.raises(InputError, match="cannot be used"):
            loaded.network(device)


def test_half_precision_weights_come_back_as_float32(tmp_path: Path) -> None:
    network = tiny()
    whole, half = save(tmp_path / "whole", network), save(tmp_path / "half", network, precision="float16")
    assert (half / "weights.safetensors").stat().st_size < 0.6 * (whole / "weights.safetensors").stat().st_size
    loaded = packages.load(half).network().state_dict()
    for name, tensor in network.state_dict().items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.allclose(loaded[name], tensor, rtol=1e-3, atol=1e-6)


def test_a_missing_background_is_added_and_channels_are_read_off_the_weights(tmp_path: Path) -> None:
    path = save(tmp_path / "two", tiny(in_channels=2), labels=["liver", "spleen"], intensity={})
    manifest = packages.load(path).manifest
    assert [label.name for label in manifest.labels] == ["background", "liver", "spleen"]
    assert [channel.intensity.rule for channel in manifest.channels] == ["percentile", "percentile"]


def test_saving_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    network = tiny()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    packages.load(save(tmp_path / "quiet", network))
    assert torch.equal(torch.rand(3), expected)


def test_an_existing_package_is_replaced_only_when_asked(package: Path) -> None:
    before = packages.verify(package)
    with pytest.raises(InputError, match="already"):
        save(package, tiny(seed=1))
    assert packages.verify(package) == before
    save(package, tiny(seed=1), overwrite=True)
    assert packages.verify(package).files != before.files
    assert [entry.name for entry in package.parent.iterdir()] == ["abdomen"]


def test_a_folder_that_is_no_package_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("dear to somebody")
    with pytest.raises(InputError, match="not a model package"):
        save(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()
    (tmp_path / "empty").mkdir()
    assert packages.load(save(tmp_path / "empty")).name == "empty"


def test_a_failed_save_leaves_the_old_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = packages.verify(package)
    rename = os.rename

    def full(source: Any, target: Any) -> None:
        if ".saving-" in str(source):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(saving.os, "rename", full)
    with pytest.raises(RunError, match="No space left"):
        save(package, tiny(seed=1), overwrite=True)
    assert packages.verify(package) == before
    assert [entry.name for entry in package.parent.iterdir()] == ["abdomen"]


def test_wrong_values_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    broken = tiny()
    with torch.no_grad():
        next(broken.parameters())[:] = float("nan")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"network": "unheard_of"}, "does not have"),
        ({"options": {"feature_sizes": [8, 8, 8], "wings": 2}}, "wings"),
        ({"options": {"feature_sizes": [8, 8, 16], "depths": [1, 1, 2]}}, "do not fit"),
        ({"labels": ["background", "liver"], "out_channels": 4}, "do not fit"),
        ({"labels": [{"name": "only"}]}, "do not fit"),
        ({"state_dict": broken.state_dict()}, "not finite"),
        ({"precision": "float8"}, "float8"),
        ({"title": 5}, '"title" must be a text'),
        ({"author": "me"}, 'unknown field "author"'),
        ({"intensity": {"rule": "wrong"}}, '"rule" must be'),
    ]
    for values, words in cases:
        with pytest.raises(InputError, match=words):
            save(tmp_path / "never", **values)
    assert list(tmp_path.iterdir()) == []


def test_changed_and_missing_files_are_noticed(package: Path) -> None:
    weights = package / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="wrong hash"):
        packages.load(package)
    weights.unlink()
    with pytest.raises(InputError, match='lacks the file "weights.safetensors"'):
        packages.load(package)
    (package / "model.json").unlink()
    with pytest.raises(InputError, match='lacks the file "model.json"'):
        packages.load(package)


def test_pickles_are_refused_even_when_the_manifest_vouches_for_them(package: Path, tmp_path: Path) -> None:
    (package / "optimizer.pt").write_bytes(b"")
    with pytest.raises(InputError, match="optimizer.pt.*can run code"):
        packages.load(package)
    (package / "optimizer.pt").unlink()
    torch.save(tiny().state_dict(), tmp_path / "checkpoint.pth")
    put_weights(package, (tmp_path / "checkpoint.pth").read_bytes())
    with pytest.raises(InputError, match="pickled checkpoint"):
        packages.load(package)
    put_weights(package, b"\x00" * 100)
    with pytest.raises(InputError, match="not a safetensors file"):
        packages.load(package)


def test_nothing_in_a_package_is_run(package: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    for name in ("__init__.py", "lk_click.py", "torch.py", "setup.py"):
        (package / name).write_text(f"open({str(witness)!r}, 'w')\n")
    packages.load(package).network()
    assert not witness.exists()


def test_weights_that_do_not_fit_the_network(package: Path) -> None:
    for options, words in (
        ({"feature_sizes": [8, 8, 16], "depths": [1, 1, 2]}, "do not fit the network.*shape"),
        ({"feature_sizes": [8, 8, 8], "depths": [1, 1, 3]}, "is missing"),
        ({"feature_sizes": [8, 8, 8], "depths": [1, 1, 1]}, "not part of the network"),
        ({"feature_sizes": [60000, 60000, 60000], "depths": [1, 1, 2]}, "do not fit the network"),
        ({"feature_sizes": "wide"}, "feature_sizes='wide' is not allowed"),
        ({"wings": 2}, "wings"),
    ):
        with pytest.raises(InputError, match=words):
            packages.load(edit(package, options=options))
    with pytest.raises(InputError, match="which this LKSegment does not have"):
        packages.load(edit(package, options=OPTIONS, network="os.system"))


def test_weights_with_nan_are_refused(package: Path) -> None:
    import safetensors.torch

    tensors = packages.load(package).network().state_dict()
    tensors[next(iter(tensors))][:] = float("inf")
    put_weights(package, safetensors.torch.save(dict(tensors)))
    with pytest.raises(InputError, match="not finite"):
        packages.load(package)


def test_links_that_leave_the_package(package: Path, tmp_path: Path) -> None:
    (package / "weights.safetensors").rename(tmp_path / "outside.safetensors")
    (package / "weights.safetensors").symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(InputError, match="link that leaves the package"):
        packages.load(package)
    (package / "weights.safetensors").unlink()
    (tmp_path / "outside.safetensors").rename(package / "weights.safetensors")
    assert packages.load(package).name == "abdomen"
    (package / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(InputError, match="link that leaves the package"):
        packages.load(package)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_the_weights_does_not_hang(package: Path) -> None:
    (package / "weights.safetensors").unlink()
    os.mkfifo(package / "weights.safetensors")
    with pytest.raises(InputError, match="not an ordinary file"):
        packages.load(package)


def test_a_huge_manifest_is_not_read(package: Path) -> None:
    with open(package / "model.json", "r+b") as stream:
        stream.truncate(2**40)
    with pytest.raises(InputError, match="larger than"):
        packages.load(package)


def zipped(package: Path, target: Path, **members: str) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in package.iterdir():
            archive.write(path, f"abdomen/{path.name}")
        for name, text in members.items():
            archive.writestr(name, text)
    return target


def test_a_zip_may_hold_the_package_in_a_folder(package: Path, tmp_path: Path) -> None:
    assert packages.load(zipped(package, tmp_path / "a.zip")).name == "abdomen"


def test_unsafe_zips(package: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("../evil.py", "/evil.py", "abdomen/../../evil.py", "..\\evil.py")):
        with pytest.raises(InputError, match="outside the package"):
            packages.load(zipped(package, tmp_path / f"{number}.zip", **{name: "x"}))
    with pytest.raises(InputError, match="can run code"):
        packages.load(zipped(package, tmp_path / "pickle.zip", **{"deep/er/weights.PKL": "x"}))
    link = zipfile.ZipInfo("abdomen/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(zipped(package, tmp_path / "link.zip"), "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="is a link"):
        packages.load(tmp_path / "link.zip")


def test_a_zip_bomb_is_not_unpacked(package: Path, tmp_path: Path) -> None:
    path = zipped(package, tmp_path / "bomb.zip")
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("big", "w") as big,
    ):
        for _ in range(80):
            big.write(bytes(2**20))
    with pytest.raises(InputError, match="almost nothing"):
        open_archive(path)


def test_damaged_zips(package: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "whole.zip")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        packages.load(tmp_path / "flipped.zip")
    (tmp_path / "short.zip").write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="not a model package"):
        packages.load(tmp_path / "short.zip")
    with pytest.raises(InputError, match="no model package at"):
        packages.load(tmp_path / "absent.zip")


def test_zips_of_kinds_that_python_does_not_know(package: Path, tmp_path: Path) -> None:
    newer = bytearray(zipped(package, tmp_path / "newer.zip").read_bytes())
    newer[newer.find(b"PK\x01\x02") + 6] = 99  # the version needed to unpack it
    (tmp_path / "newer.zip").write_bytes(newer)
    with pytest.raises(InputError, match="cannot be opened"):
        packages.load(tmp_path / "newer.zip")
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.write(package / "model.json", "model.json")
    packed = bytearray((tmp_path / "lzma.zip").read_bytes())
    packed[60:80] = bytes(20)
    (tmp_path / "lzma.zip").write_bytes(packed)
    with pytest.raises(InputError, match="is damaged"):
        packages.load(tmp_path / "lzma.zip")


def test_a_link_that_leads_to_itself(package: Path) -> None:
    (package / "loop").symlink_to("loop")
    with contextlib.suppress(InputError):  # since Python 3.13 such a link is resolved to itself
        packages.load(package)


def test_a_manifest_cannot_ask_for_a_network_that_takes_forever_to_build(package: Path) -> None:
    manifest = json.loads((package / "model.json").read_text())
    options = {"depths": [65536] * 4, "feature_sizes": [4, 8, 16, 32]}
    (package / "model.json").write_text(json.dumps({**manifest, "network": "dnet", "options": options}))
    with pytest.raises(InputError, match="more tensors than its weights"):
        packages.load(package)


def test_a_file_in_place_of_the_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written .*Choose another place"):
        save(tmp_path / "file" / "package")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_the_persons_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Path, *arguments: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(saving.Path, "mkdir", refuse)
    with pytest.raises(InputError, match=f"cannot be written \\({os.strerror(number)}\\).*Choose another place"):
        save(tmp_path / "package")
    assert list(tmp_path.iterdir()) == []
