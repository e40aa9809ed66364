"""The worker as a real process: requests, progress, order and answers. The work itself is faked."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from LKSegmentLib.engine.client import SUPERSEDED, EngineClient
from LKSegmentLib.errors import Cancelled, InputError, RunError
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Volume

HERE = str(Path(__file__).parent)
PATIENCE = 60.0


def new_client(**more):
    return EngineClient(environment={"PYTHONPATH": HERE}, service="worker_fakes:FakeService", **more)


def wait_for_stage(client, job, stage):
    """The events until the job reached this stage."""
    events = []
    deadline = time.monotonic() + PATIENCE
    while job.stage != stage and time.monotonic() < deadline:
        events += client.poll()
        time.sleep(0.005)
    assert job.stage == stage
    return events


@pytest.fixture
def client():
    with new_client() as one:
        yield one


@pytest.fixture(scope="module")
def warm():
    """One worker for the tests that leave it as it was."""
    with new_client() as one:
        one.wait(one.models(), PATIENCE)
        yield one


@pytest.fixture
def volume():
    matrix = np.array([[0.0, -2.0, 0.0, 10.0], [3.0, 0.0, 0.0, -20.0], [0.0, 0.0, 1.5, 5.0], [0, 0, 0, 1]])
    return Volume(np.arange(-30, 30, dtype=np.int16).reshape(3, 4, 5), matrix)


def test_nothing_starts_before_the_first_request(client, volume):
    client.open_image(volume)
    assert client.poll() == [] and not client.is_alive


def test_first_request_starts_a_worker_and_the_second_finds_it_warm(client, volume):
    image = client.open_image(volume)
    first = client.segment(image, "plain")
    assert first.state == "queued" and client.is_alive
    result = client.wait(first, PATIENCE)
    process = client.worker_facts["process"]
    assert np.array_equal(result.labels.array, volume.array > 0) and result.labels.array.dtype == np.uint16
    assert np.array_equal(result.labels.ijk_to_ras, volume.ijk_to_ras)
    assert result.names == ["thing"] and result.entries[0]["color"] == [1, 2, 3]
    client.wait(client.segment(image, "plain"), PATIENCE)
    assert client.worker_facts["process"] == process


@pytest.mark.parametrize("transport", ["inherited", "loopback"])
@pytest.mark.parametrize("carrier", ["shared", "wire"])
def test_every_way_to_connect_and_to_carry_arrays_gives_the_same(transport, carrier, volume):
    with new_client(transport=transport, carrier=carrier) as client:
        image = client.open_image(volume)
        points = [Point((4.0, -14.0, 6.5), True), Point((8.0, -20.0, 5.0), False)]
        result = client.wait(client.click(image, "lk", "cpu", points, with_maps=True), PATIENCE)
    assert result.box.full(volume.grid.shape).sum() == 1 and result.box.array[0, 0, 0] == 2
    assert result.maps[0].passport == {"points": [[4.0, -14.0, 6.5, True], [8.0, -20.0, 5.0, False]], "device": "cpu"}
    assert np.array_equal(result.maps[0].volume.array, volume.array)
    assert np.array_equal(result.maps[0].volume.ijk_to_ras, volume.ijk_to_ras)


@pytest.mark.parametrize("kind", ["bool", "int8", "uint8", ">u2", "int32", "uint64", "float16", ">f4", "float64"])
def test_every_voxel_type_arrives(warm, kind):
    volume = Volume(np.array([[[0, 1], [1, 0]]]).astype(kind), np.eye(4))
    result = warm.wait(warm.segment(warm.open_image(volume), "plain"), PATIENCE)
    assert result.labels.array.tolist() == [[[0, 1], [1, 0]]]


def test_part_of_a_larger_array_and_channels_arrive(warm):
    whole = np.arange(2 * 6 * 6 * 6, dtype=np.float32).reshape(2, 6, 6, 6)
    volume = Volume(whole[:, ::2, ::-1, 1:4], np.eye(4))
    result = warm.wait(warm.click(warm.open_image(volume), "lk", "cpu", [Point((0, 0, 0))], True), PATIENCE)
    assert np.array_equal(result.maps[0].volume.array, volume.array)


def test_progress_is_told_by_stage(warm, volume):
    job = warm.segment(warm.open_image(volume), "patient")
    events = wait_for_stage(warm, job, "windows")
    assert {(e.job, e.kind) for e in events} == {(job, "progress")}
    assert job.state == "running" and job.progress == 0.25
    warm.cancel(job)
    with pytest.raises(Cancelled):
        warm.wait(job, PATIENCE)


def test_starting_is_a_stage_of_its_own(client, volume):
    job = client.segment(client.open_image(volume), "plain")
    assert [(e.job, e.kind) for e in client.poll()] == [(job, "progress")] and job.stage == "starting the worker"


def test_each_job_ends_with_one_event(warm, volume):
    job = warm.segment(warm.open_image(volume), "plain")
    events = []
    while not job.is_over:
        events += warm.poll()
    assert [e.kind for e in events if e.kind != "progress"] == ["done"]
    assert {e.job for e in events} == {job} and warm.poll() == []


def test_a_polite_cancel_keeps_the_worker(warm, volume):
    image = warm.open_image(volume)
    process = warm.worker_facts["process"]
    job = warm.segment(image, "patient")
    warm.cancel(job)
    with pytest.raises(Cancelled):
        warm.wait(job, PATIENCE)
    warm.wait(warm.segment(image, "plain"), PATIENCE)
    assert warm.worker_facts["process"] == process


def test_requests_run_in_the_order_they_came(warm, volume):
    image = warm.open_image(volume)
    first, second, third = (warm.segment(image, model) for model in ("patient", "plain", "unknown"))
    assert [job.state for job in (first, second, third)] == ["running", "queued", "queued"]
    wait_for_stage(warm, first, "windows")
    warm.cancel(first)
    order = warm.wait(second, PATIENCE).entries[0]["order"]
    assert order[-2:] == ["patient", "plain"]
    with pytest.raises(InputError, match="no such model"):
        warm.wait(third, PATIENCE)


def test_a_queued_job_is_cancelled_at_once(warm, volume):
    image = warm.open_image(volume)
    running, queued = warm.segment(image, "patient"), warm.segment(image, "plain")
    warm.cancel(queued)
    assert queued.state == "cancelled" and running.state == "running"
    warm.cancel(running)
    with pytest.raises(Cancelled):
        warm.wait(running, PATIENCE)


def test_a_click_supersedes_waiting_clicks_on_the_same_target(warm, volume):
    image, other = warm.open_image(volume), warm.open_image(volume)
    points = [Point((4.0, -14.0, 6.5))] * 3
    running = warm.click(image, "slow", "cpu", points[:1], target="liver")
    passed = warm.click(image, "slow", "cpu", points[:2], target="liver")
    kept = [
        warm.click(image, "slow", "cpu", points[:1], target="spleen"),
        warm.click(other, "slow", "cpu", points[:1], target="liver"),
        warm.segment(image, "plain"),
    ]
    last = warm.click(image, "slow", "cpu", points, target="liver")
    assert passed.state == "cancelled" and passed.stage == SUPERSEDED
    assert warm.wait(last, PATIENCE).box.array.tolist() == [[[3]]]
    assert [job.state for job in (running, *kept)] == ["done"] * 4


def test_maps_reach_and_what_is_exposed_come_back(warm, volume):
    image = warm.open_image(volume)
    assert warm.wait(warm.exposed("any"), PATIENCE)["entries"] == [{"name": "gate"}]
    job = warm.inspect(image, "any", "cpu", ["a", "b #5"])
    found = warm.wait(job, PATIENCE)
    assert job.plan == "2 maps, 3 MB."
    assert [shown.name for shown in found.maps] == ["a", "b #5"] and found.maps[0].passport == {"device": "cpu"}
    assert np.array_equal(found.maps[1].volume.array, volume.array)
    assert found.tables[0].column("share") == [0.5, None]
    reach = warm.wait(warm.reach(image, "any", "cpu", (1, 2, 3), [Point((0, 0, 0))], 4, 7.5), PATIENCE)
    assert reach.ras == (1.0, 2.0, 3.0) and reach.map.passport == {"label": 4, "points": 1, "around": 7.5}
    assert reach.radii_mm[90] == (4.0, 5.0, 6.0) and reach.sentence == "Near."


def test_an_inspection_is_cancelled_politely(warm, volume):
    process = warm.worker_facts["process"]
    job = warm.inspect(warm.open_image(volume), "patient", "cpu", ["a"])
    wait_for_stage(warm, job, "windows")
    warm.cancel(job)
    with pytest.raises(Cancelled):
        warm.wait(job, PATIENCE)
    warm.wait(warm.models(), PATIENCE)
    assert warm.worker_facts["process"] == process


def test_an_inspection_with_points_is_a_click_and_without_is_none(warm, volume):
    image = warm.open_image(volume)
    running = warm.click(image, "slow", "cpu", [Point((0, 0, 0))], target="liver")
    whole = warm.inspect(image, "any", "cpu", ["a"], target="liver")
    passed = warm.click(image, "slow", "cpu", [Point((0, 0, 0))], target="liver")
    also = warm.inspect(image, "any", "cpu", ["a"], [Point((0, 0, 0))], target="liver")
    last = warm.inspect(image, "any", "cpu", ["a"], [Point((0, 0, 0))], target="liver")
    assert (passed.state, passed.stage, also.state) == ("cancelled", SUPERSEDED, "cancelled")
    for job in (running, whole, last):
        warm.wait(job, PATIENCE)


def test_a_job_on_an_image_that_the_service_refuses_tells_why(warm):
    image = warm.open_image(Volume(np.zeros((1, 1, 1)), np.eye(4)))
    with pytest.raises(InputError, match="too small"):
        warm.wait(warm.segment(image, "plain"), PATIENCE)


def test_a_closed_image_takes_its_waiting_jobs_with_it(warm, volume):
    image, other = warm.open_image(volume), warm.open_image(volume)
    running, waiting = warm.segment(other, "patient"), warm.segment(image, "plain")
    warm.close_image(image)
    assert waiting.state == "cancelled"
    with pytest.raises(InputError, match="closed"):
        warm.segment(image, "plain")
    warm.cancel(running)
    with pytest.raises(Cancelled):
        warm.wait(running, PATIENCE)


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("memory", RunError, "not enough memory on the device 'cuda:0'.*try again"),
        ("no_memory", RunError, "not enough memory"),
        ("broken_network", RunError, "mat1 and mat2 shapes cannot be multiplied.$"),
        ("refuses", RunError, "It did not work; try again."),
        ("missing", InputError, "'a_package_that_nobody_has' is missing in .*python.*-m pip install"),
    ],
)
def test_failures_are_sentences_and_the_worker_stays(warm, volume, model, error, words):
    image = warm.open_image(volume)
    process = warm.worker_facts["process"]
    job = warm.segment(image, model, "cuda:0")
    with pytest.raises(error, match=words):
        warm.wait(job, PATIENCE)
    assert job.state == "failed" and "\n" not in job.error
    warm.wait(warm.segment(image, "plain"), PATIENCE)
    assert warm.worker_facts["process"] == process


class NowhereAtAll:
    """Not a point that the library would make."""

    ras, positive, with_next = (float("nan"), 0, 0), True, False


@pytest.mark.parametrize("points", [[Point((1.0, 2.0, 3.0))] * 5000, [NowhereAtAll]])
def test_an_impossible_request_is_refused_before_it_is_sent(warm, volume, points):
    with pytest.raises(InputError, match="at most 4096 points"):
        warm.click(warm.open_image(volume), "lk", "cpu", points)


def test_images_that_cannot_travel_are_refused(warm):
    with pytest.raises(InputError, match="not supported"):
        warm.open_image(Volume(np.zeros((2, 2, 2), np.longdouble), np.eye(4)))


def test_the_worker_sees_this_library_and_environment_but_not_the_current_folder(warm, tmp_path, monkeypatch):
    facts = warm.wait(warm.doctor(), PATIENCE)
    assert (Path(facts["cwd"]) / "LKSegmentLib").is_dir()
    assert facts["environment"]["PYTHONPATH"].split(":")[1] == HERE
    assert facts["process"] == warm.worker_facts["process"]


def test_the_welcome_names_versions(warm):
    facts = warm.worker_facts
    assert facts["numpy"] == np.__version__ and facts["python"].startswith("3.")
