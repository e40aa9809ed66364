"""Real networks in the real worker: the same answer as in this process, whatever happened before."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from LKSegmentLib import packages  # noqa: E402
from LKSegmentLib.engine.client import EngineClient  # noqa: E402
from LKSegmentLib.engine.service import Service  # noqa: E402
from LKSegmentLib.engine.warm import KEPT, WarmPackages  # noqa: E402
from LKSegmentLib.errors import Cancelled, InputError  # noqa: E402
from LKSegmentLib.networks import create  # noqa: E402
from LKSegmentLib.prompts import CHANNELS, Point  # noqa: E402
from LKSegmentLib.volumes import Volume  # noqa: E402

PATIENCE = 120.0
SMALL_CLICK = {"feature_sizes": [8, 16, 16], "depths": [1, 1, 1], "layer_scale": 1.0}
SMALL_UNET = {"feature_sizes": [8, 16], "norm_groups": 4, "attention": {"0": [5, 1]}}


def silent(stage: str, fraction: float) -> None:
    pass


def never() -> bool:
    return False


def save(folder: Path, network: str, options: dict, in_channels: int, labels: list, **more) -> Path:
    torch.manual_seed(5)
    more.setdefault("window", (16, 16, 16))
    net = create(network, in_channels=in_channels, out_channels=max(len(labels), 1), **options)
    return packages.save(
        folder, network=network, options=options, state_dict=net.state_dict(), labels=labels, licence="CC0", **more
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save(folder / "clicker", "lk_click", SMALL_CLICK, len(CHANNELS), ["structure"], kind="click", title="Clicker")
    save(folder / "organs", "lka_unet", SMALL_UNET, 1, ["background", "liver", "spleen"], title="Organs")
    save(folder / "plain", "monai_segresnet", {}, 1, ["background", "liver"], title="Plain")
    (folder / "broken").mkdir()
    (folder / "broken" / "model.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def client(models):
    with EngineClient(environment={"LKSEGMENT_MODELS": str(models)}) as one:
        yield one


@pytest.fixture
def service(models, monkeypatch):
    monkeypatch.setenv("LKSEGMENT_MODELS", str(models))
    return Service()


@pytest.fixture(scope="module")
def volume():
    matrix = np.array([[0.0, -2.0, 0.1, 10.0], [3.0, 0.0, 0.0, -20.0], [0.0, 0.1, 1.5, 5.0], [0, 0, 0, 1]])
    return Volume(np.random.default_rng(3).normal(100, 50, (20, 24, 28)).astype(np.float32), matrix)


@pytest.fixture(scope="module")
def points(volume):
    centre = volume.grid.centre_ras
    return [Point(tuple(centre)), Point(tuple(centre + 6.0), False), Point(tuple(centre - 5.0))]


def test_clicks_and_maps_are_identical_in_the_worker_and_here(client, service, volume, points):
    image = client.open_image(volume)
    service.open_image(1, volume.array, volume.ijk_to_ras)
    for count in (1, 2, 3, 2):  # the last is an undo
        there = client.wait(client.click(image, "clicker", "cpu", points[:count], with_maps=True), PATIENCE)
        here = service.click(1, "clicker", "cpu", points[:count], True, silent, never)
        assert there.box.lower == here.box.lower and np.array_equal(there.box.array, here.box.array)
        assert [m.name for m in there.maps] == [m.name for m in here.maps] and len(here.maps) > 1
        for mine, theirs in zip(here.maps, there.maps, strict=True):
            assert np.array_equal(mine.volume.array, theirs.volume.array) and mine.passport == theirs.passport
            assert np.array_equal(mine.volume.ijk_to_ras, theirs.volume.ijk_to_ras)
        plain = client.wait(client.click(image, "clicker", "cpu", points[:count]), PATIENCE)
        assert np.array_equal(plain.box.array, here.box.array) and plain.maps == []


def test_a_restarted_worker_comes_to_the_same_mask(client, volume, points):
    image = client.open_image(volume)
    before = client.wait(client.click(image, "clicker", "cpu", points), PATIENCE)
    first = client.worker_facts["process"]
    client._worker.kill()
    while client.is_alive:
        client.poll()
        time.sleep(0.01)
    after = client.wait(client.click(image, "clicker", "cpu", points), PATIENCE)
    assert client.worker_facts["process"] != first
    assert after.box.lower == before.box.lower and np.array_equal(after.box.array, before.box.array)


def test_a_whole_volume_is_identical_in_the_worker_and_here(client, service, volume):
    service.open_image(1, volume.array, volume.ijk_to_ras)
    here = service.segment(1, "organs", "cpu", silent, never)
    there = client.wait(client.segment(client.open_image(volume), "organs", "cpu"), PATIENCE)
    assert np.array_equal(here.labels.array, there.labels.array) and there.labels.array.dtype == np.uint16
    assert there.labels.grid == volume.grid and len(np.unique(there.labels.array)) > 1
    assert there.names == ["liver", "spleen"] and there.entries == here.entries
    assert [entry["value"] for entry in there.entries] == [1, 2]


def test_maps_of_a_whole_volume_are_identical_in_the_worker_and_here(client, service, volume):
    service.open_image(1, volume.array, volume.ijk_to_ras)
    image, plans = client.open_image(volume), []
    listed = client.wait(client.exposed("organs"), PATIENCE)
    assert listed == service.exposed("organs", silent) and listed["kind"] == "volume" and not listed["nothing"]
    names = [entry["name"] for entry in listed["entries"] if entry["default"]]
    job = client.inspect(image, "organs", "cpu", [f"{names[0]} #1"])
    there = client.wait(job, PATIENCE)
    here = service.inspect(1, "organs", "cpu", [], [f"{names[0]} #1"], silent, never, plans.append)
    assert job.plan.split(" window")[0] == plans[0].split(" window")[0] and "1 map" in job.plan
    assert there.maps[0].name == f"{names[0]} #1" and len(there.maps) == len(here.maps)
    for mine, theirs in zip(here.maps, there.maps, strict=True):
        assert np.array_equal(mine.volume.array, theirs.volume.array) and mine.volume.grid == theirs.volume.grid
    plain = service.segment(1, "organs", "cpu", silent, never)
    assert np.array_equal(there.answer.labels.array, plain.labels.array) and there.answer.entries == plain.entries


def test_maps_after_clicks_are_those_that_were_chosen(client, service, volume, points):
    listed = client.wait(client.exposed("clicker"), PATIENCE)
    names = [entry["name"] for entry in listed["entries"]]
    assert listed["kind"] == "click" and sum(entry["default"] for entry in listed["entries"]) == 1
    found = client.wait(client.inspect(client.open_image(volume), "clicker", "cpu", names[2:0:-1], points), PATIENCE)
    service.open_image(1, volume.array, volume.ijk_to_ras)
    here = service.click(1, "clicker", "cpu", points, True, silent, never)
    assert np.array_equal(found.answer.box.array, here.box.array)
    assert [shown.name for shown in found.maps] == names[2:0:-1]
    assert np.array_equal(found.maps[1].volume.array, here.maps[1].volume.array)
    assert len(service.inspect(1, "clicker", "cpu", points, None, silent, never).maps) == len(here.maps)


@pytest.mark.parametrize("model", ["clicker", "organs"])
def test_the_reach_is_identical_in_the_worker_and_here(client, service, volume, points, model):
    service.open_image(1, volume.array, volume.ijk_to_ras)
    clicks, place = (points[:1] if model == "clicker" else []), points[0].ras
    there = client.wait(client.reach(client.open_image(volume), model, "cpu", place, clicks), PATIENCE)
    here = service.reach(1, model, "cpu", clicks, None, None, silent, never)
    assert np.array_equal(there.map.volume.array, here.map.volume.array) and there.map.volume.array.any()
    assert (there.ras, there.radii_mm, there.sentence) == (here.ras, here.radii_mm, here.sentence)
    assert there.map.passport["in words"] == there.sentence and "50 %" in there.sentence


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda c, i, p: c.inspect(i, "organs", "cpu", ["no such map"]), "no map 'no such map'.*shows: "),
        (lambda c, i, p: c.inspect(i, "organs", "cpu", ["LK attention, level 0 #99"]), "there is no channel 99"),
        (lambda c, i, p: c.inspect(i, "clicker", "cpu", ["no such map"], p), "no map 'no such map'.*shows: "),
        (lambda c, i, p: c.inspect(i, "clicker", "cpu"), "maps of a click model depend on the clicks"),
        (lambda c, i, p: c.inspect(i, "organs", "cpu", None, p), "takes no clicks"),
        (lambda c, i, p: c.inspect(i, "plain", "cpu"), "has nothing to show"),
        (lambda c, i, p: c.inspect(i, "organs", "cpu", []), "Name at least one map"),
        (lambda c, i, p: c.reach(i, "clicker", "cpu"), "reach of a click model depends on the clicks"),
        (lambda c, i, p: c.reach(i, "organs", "cpu", (1e4, 0, 0)), "outside the volume"),
        (lambda c, i, p: c.reach(i, "organs", "cpu", label=7), "outputs 0 to 2, not 7"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(client, volume, points, ask, words):
    with pytest.raises(InputError, match=words):
        client.wait(ask(client, client.open_image(volume), points), PATIENCE)


def test_a_network_without_gates_is_listed_with_what_gradients_tell(client):
    listed = client.wait(client.exposed("plain"), PATIENCE)
    assert not listed["nothing"] and {entry["group"] for entry in listed["entries"]} == {"gradients", "segments"}
    assert not any(entry["default"] for entry in listed["entries"])


@pytest.mark.parametrize("model", ["clicker", "organs"])
def test_means_by_segment_are_of_the_maps_beside_them(client, volume, points, model):
    image, clicks = client.open_image(volume), points if model == "clicker" else []
    entries = client.wait(client.exposed(model), PATIENCE)["entries"]
    first = next(entry["name"] for entry in entries if entry["default"])
    found = client.wait(client.inspect(image, model, "cpu", [first, "means by segment"], clicks), PATIENCE)
    (table,) = found.tables
    assert table.name == "means by segment" and set(table.column("map")) == {first}
    assert table.column("segment") == (["the clicked structure"] if clicks else ["liver", "spleen"])
    with pytest.raises(InputError, match="choose a map of the image beside them"):
        client.wait(client.inspect(image, model, "cpu", ["means by segment"], clicks), PATIENCE)


def test_what_the_weights_alone_tell_needs_no_run(client, volume, points):
    image = client.open_image(volume)
    entries = client.wait(client.exposed("clicker"), PATIENCE)["entries"]
    names = [entry["name"] for entry in entries if entry["group"] == "weights"]
    assert "large kernels" in names
    asked = ["large kernels", "changes by click"]
    found = client.wait(client.inspect(image, "clicker", "cpu", asked, points), PATIENCE)
    assert [table.name for table in found.tables] == ["changes by click", "large kernels"]
    assert found.answer.box.array.any() == bool(found.tables[0].column("voxels")[-1]) and found.maps == []
    entries = client.wait(client.exposed("organs"), PATIENCE)["entries"]
    picture = next(entry["name"] for entry in entries if entry["name"].startswith("mean |weight|"))
    job = client.inspect(image, "organs", "cpu", [picture])
    found = client.wait(job, PATIENCE)
    assert found.answer is None and job.plan == ""
    assert [shown.passport["space"] for shown in found.maps] == ["kernel"]


def test_voxels_that_are_no_numbers_are_told(client, volume):
    array = volume.array.copy()
    array[0, 0, :3] = np.nan
    job = client.segment(client.open_image(volume.with_array(array)), "organs", "cpu")
    client.wait(job, PATIENCE)
    assert len(job.warnings) == 1 and "3 of" in job.warnings[0]


def test_a_cancelled_run_stops_between_windows(service, volume):
    service.open_image(1, volume.array, volume.ijk_to_ras)
    asked = []

    def stages(stage: str, fraction: float) -> None:
        asked.append(stage)

    with pytest.raises(Cancelled):
        service.segment(1, "organs", "cpu", stages, lambda: "windows" in asked)
    assert "windows" in asked


@pytest.mark.parametrize(
    ("model", "device", "words"),
    [
        ("nobody", "cpu", "no model .nobody. .installed: .*clicker"),
        ("./nowhere/model", "cpu", "nowhere"),
        ("clicker", "cuda:77", "cuda:77"),
        ("clicker", "toaster", "toaster"),
        ("organs", "cpu", "does not take clicks"),
    ],
)
def test_wrong_models_and_devices_are_sentences(client, volume, points, model, device, words):
    with pytest.raises(InputError, match=words):
        client.wait(client.click(client.open_image(volume), model, device, points), PATIENCE)


def test_clicks_outside_and_click_models_on_whole_volumes_are_refused(client, volume):
    image = client.open_image(volume)
    with pytest.raises(InputError, match="outside the volume"):
        client.wait(client.click(image, "clicker", "cpu", [Point((1e5, 0.0, 0.0))]), PATIENCE)
    with pytest.raises(InputError, match="clicker.*works with clicks"):
        client.wait(client.segment(image, "clicker", "cpu"), PATIENCE)


def test_models_and_doctor_tell_what_there_is(client, models):
    listed = client.wait(client.models(), PATIENCE)
    found = {entry["name"]: entry for entry in listed["models"]}
    assert found["clicker"]["kind"] == "click" and found["organs"]["title"] == "Organs"
    assert [label["name"] for label in found["organs"]["labels"]] == ["liver", "spleen"]
    assert [entry["folder"] for entry in listed["broken"]] == [str(models / "broken")]
    facts = client.wait(client.doctor(), PATIENCE)
    processor = next(device for device in facts["devices"] if device["name"] == "cpu")
    assert facts["torch"] == torch.__version__ and processor["works"] and processor["problem"] == ""


def test_an_image_is_open_until_it_is_closed(service, volume, points):
    with pytest.raises(InputError, match="not open"):
        service.click(1, "clicker", "cpu", points, False, silent, never)
    service.open_image(1, volume.array, volume.ijk_to_ras)
    service.click(1, "clicker", "cpu", points, False, silent, never)
    service.close_image(1)
    assert not service._sessions
    with pytest.raises(InputError, match="not open"):
        service.segment(1, "organs", "cpu", silent, never)


def test_an_image_that_replaces_another_is_the_one_that_is_used(service, volume, points):
    service.open_image(1, volume.array, volume.ijk_to_ras)
    service.click(1, "clicker", "cpu", points[:1], False, silent, never)
    other = volume.array[:, ::-1].copy()
    service.open_image(1, other, volume.ijk_to_ras)
    again = service.click(1, "clicker", "cpu", points[:1], False, silent, never)
    fresh = Service()
    fresh.open_image(1, other, volume.ijk_to_ras)
    assert np.array_equal(again.box.array, fresh.click(1, "clicker", "cpu", points[:1], False, silent, never).box.array)


def test_memory_is_freed_on_request_and_the_answer_stays(service, volume, points):
    service.open_image(1, volume.array, volume.ijk_to_ras)
    before = service.click(1, "clicker", "cpu", points, False, silent, never)
    service.release_memory()
    assert not service._sessions and not service._packages._packages
    after = service.click(1, "clicker", "cpu", points, False, silent, never)
    assert np.array_equal(before.box.array, after.box.array)


def test_packages_stay_loaded_until_they_change_or_many_follow(tmp_path):
    loaded = WarmPackages()
    folder = save(tmp_path / "one", "lka_unet", SMALL_UNET, 1, ["background", "liver"])
    stages = []
    first = loaded.get(str(folder), lambda stage, fraction: stages.append(fraction))
    assert loaded.get(str(folder), silent) is first and stages == [0.0, 1.0]
    assert first.network("cpu") is first.network("cpu")
    manifest = folder / "model.json"
    manifest.write_text(manifest.read_text().replace("CC0", "MIT"))
    changed = loaded.get(str(folder), silent)
    assert changed is not first and changed.manifest.licence == "MIT"
    for number in range(KEPT):
        loaded.get(str(save(tmp_path / f"more{number}", "lka_unet", SMALL_UNET, 1, ["background", "liver"])), silent)
    assert len(loaded._packages) == KEPT and loaded.get(str(folder), silent) is not changed


def test_click_sessions_do_not_keep_packages_alive_that_made_room_for_others(service, volume, points, tmp_path):
    service.open_image(1, volume.array, volume.ijk_to_ras)
    for number in range(KEPT + 2):
        folder = save(tmp_path / f"{number}", "lk_click", SMALL_CLICK, len(CHANNELS), ["structure"], kind="click")
        service.click(1, str(folder), "cpu", points[:1], False, silent, never)
    assert len(service._sessions) == KEPT
