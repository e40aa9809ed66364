"""Intensity rules, canonical axes and spacing on the way to a network."""

from __future__ import annotations

import tracemalloc
from itertools import permutations, product

import numpy as np
import pytest
from test_packages_manifest import GOOD

torch = pytest.importorskip("torch")

from LKSegmentLib.errors import InputError  # noqa: E402
from LKSegmentLib.inference.devices import available_devices, resolve_device  # noqa: E402
from LKSegmentLib.inference.preparation import preparation_for, prepared_volume, scaling_for  # noqa: E402
from LKSegmentLib.packages import Manifest  # noqa: E402
from LKSegmentLib.packages.channels import intensity_from  # noqa: E402
from LKSegmentLib.packages.manifest import manifest_from  # noqa: E402
from LKSegmentLib.volumes import Volume  # noqa: E402


def scaled(values: list[float], **rule: object) -> list[float]:
    array = np.array(values, dtype=np.float32)
    scaling_for(array.copy(), intensity_from(rule, "Test")).apply(array)
    return [round(float(value), 4) for value in array]


def test_each_rule_does_what_it_says() -> None:
    assert scaled([-1000, -160, 40, 240, 3000], rule="ct", window=[-160, 240]) == [0, 0, 0.5, 1, 1]
    assert scaled([-1000, 40, 240], rule="ct", window=[-160, 240], range=[-1, 1]) == [-1, 0, 1]
    assert scaled([0, 100, 300], rule="standard", window=[0, 200], mean=50, std=50) == [-1, 1, 3]
    assert scaled(list(range(101)), rule="percentile", lower=10, upper=90)[::25] == [0, 0.1875, 0.5, 0.8125, 1]
    assert scaled([1, 3], rule="zscore") == [-1, 1]
    assert scaled([0, 0, 1, 3], rule="zscore", nonzero=True) == [0, 0, -1, 1]
    assert scaled([0, 0, 10, 20], rule="percentile", lower=0, upper=100, nonzero=True, range=[1, 2]) == [1, 1, 1, 2]
    assert scaled([-5, 7], rule="none") == [-5, 7]


@pytest.mark.parametrize("rule", ["percentile", "zscore"])
@pytest.mark.parametrize("nonzero", [False, True])
@pytest.mark.parametrize("value", [0.0, 7.0, -1e6])
def test_a_constant_image_stays_finite(rule: str, nonzero: bool, value: float) -> None:
    assert set(scaled([value] * 4, rule=rule, nonzero=nonzero)) == {0.0}


def manifest(**changes: object) -> Manifest:
    return manifest_from({**GOOD, **changes}, "The manifest")


def oriented(canonical: np.ndarray, spacing: tuple[float, float, float]) -> list[Volume]:
    """The same physical image stored in all 48 axis orders."""
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = (-12.0, 5.0, 40.0)
    volumes = []
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        array, steps = canonical.transpose(order), np.zeros((4, 4))
        steps[3, 3] = 1
        for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
            # numpy axis 0, 1, 2 is k, j, i: column 2 - axis of the matrix
            steps[2 - source, 2 - axis] = -1 if flip else 1
            steps[2 - source, 3] = canonical.shape[source] - 1 if flip else 0
        array = array[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
        volumes.append(Volume(array, matrix @ steps))
    return volumes


def test_the_network_sees_the_same_whatever_the_axes() -> None:
    canonical = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32) * 100
    wanted = manifest(spacing=[1.0, 1.5, 2.0])
    results = [prepared_volume(volume, wanted) for volume in oriented(canonical, (1.2, 1.0, 3.0))]
    for result in results:
        assert result.array.shape == (1, 9, 5, 10)
        assert np.allclose(result.array, results[0].array, atol=1e-5)
        assert result.preparation.working.matches(results[0].preparation.working, 1e-6)


def test_the_volume_is_left_as_it_is_and_fitting_spacing_is_not_resampled() -> None:
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32) * 300
    volume = Volume(array.copy(), np.diag([1.5, 1.5, 2.0001, 1.0]))
    result = prepared_volume(volume, manifest())
    assert np.array_equal(volume.array, array)
    assert not result.preparation.resampled
    assert np.allclose(result.array[0], np.clip((array + 160) / 400, 0, 1), atol=1e-6)
    assert not preparation_for(volume.grid, None).resampled
    assert preparation_for(volume.grid, (1.5, 1.5, 2.1)).resampled


def test_channels_have_rules_of_their_own_and_must_be_as_many_as_the_model_wants() -> None:
    two = [
        {"name": "CT", "intensity": {"rule": "ct", "window": [0, 100], "range": [2, 3]}},
        {"name": "PET", "intensity": {"rule": "zscore"}},
    ]
    array = np.stack([np.full((2, 2, 2), 50.0), np.arange(8.0).reshape(2, 2, 2)]).astype(np.float32)
    result = prepared_volume(Volume(array, np.eye(4)), manifest(in_channels=2, channels=two, spacing=None))
    assert result.padding == (2.0, 0.0)
    assert (result.array[0] == 2.5).all() and abs(result.array[1].mean()) < 1e-6
    with pytest.raises(InputError, match="wants 1 image channel .*the volume has 2"):
        prepared_volume(Volume(array, np.eye(4)), manifest())


def test_devices_are_never_exchanged_silently() -> None:
    names = [facts.name for facts in available_devices()]
    assert resolve_device("cpu") == torch.device("cpu") and resolve_device("auto") == torch.device(names[0])
    for name in ("cuda:98", "tpu", "", "cuda:", "cpu:1") + (() if "mps" in names else ("mps",)):
        with pytest.raises(InputError, match="choose one of auto"):
            resolve_device(name)
    assert resolve_device(" CPU ") == torch.device("cpu")


def test_several_channels_are_never_held_twice() -> None:
    channels = [{"name": name, "intensity": {"rule": "none"}} for name in "abcdefgh"]
    manifest = manifest_from({**GOOD, "in_channels": 8, "channels": channels, "spacing": None}, "The manifest")
    volume = Volume(np.ones((8, 32, 32, 32), np.float32), np.eye(4))
    tracemalloc.start()
    prepared = prepared_volume(volume, manifest)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert prepared.array.shape == volume.array.shape
    assert peak < 1.5 * volume.array.nbytes
