"""The worker as a real process that is killed, misbehaves or cannot start. The work itself is faked."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from LKSegmentLib.engine import launching, shared_arrays
from LKSegmentLib.engine.client import EngineClient
from LKSegmentLib.errors import Cancelled, InputError, RunError
from LKSegmentLib.volumes import Volume

HERE = str(Path(__file__).parent)
PATIENCE = 60.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes by signal")


def new_client(service="worker_fakes:FakeService", **more):
    return EngineClient(environment={"PYTHONPATH": HERE}, service=service, **more)


@pytest.fixture
def client():
    with new_client() as one:
        yield one


@pytest.fixture
def volume():
    return Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([2.0, 3.0, 4.0, 1.0]))


def until(condition, what, client=None):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        if client is not None:
            client.poll()
        time.sleep(0.005)


def works(client, volume):
    """Whether the next request is answered; its worker's process."""
    image = client.open_image(volume)
    assert client.wait(client.segment(image, "plain"), PATIENCE).labels.array.shape == volume.array.shape
    return client.worker_facts["process"]


def has_ended(process):
    """Whether a process runs no more; the system may still keep its exit code for somebody."""
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def blocks_of(prefix):
    return [name for name in os.listdir(shared_arrays.blocks_folder()) if name.startswith(prefix)]


def test_a_deaf_job_is_killed_and_the_next_request_works_with_the_same_image(client, volume):
    image = client.open_image(volume)
    job = client.segment(image, "deaf")
    until(lambda: job.stage == "windows", "it runs", client)
    first = client.worker_facts["process"]
    client.cancel(job, force_after=0.2)
    with pytest.raises(Cancelled):
        client.wait(job, PATIENCE)
    result = client.wait(client.segment(image, "plain"), PATIENCE)  # the image is opened again without being asked
    assert np.array_equal(result.labels.array, volume.array > 0)
    assert client.worker_facts["process"] != first and not psutil.pid_exists(first)


def test_a_second_cancel_may_shorten_the_patience_and_not_lengthen_it(client, volume):
    job = client.segment(client.open_image(volume), "deaf")
    until(lambda: job.stage == "windows", "it runs", client)
    client.cancel(job, force_after=600.0)
    client.cancel(job, force_after=0.0)
    client.cancel(job, force_after=600.0)
    until(lambda: job.is_over, "it is over", client)
    assert job.state == "cancelled"


def test_a_forced_kill_takes_the_whole_family(client, volume):
    job = client.segment(client.open_image(volume), "family")
    until(lambda: job.stage.isdigit(), "the child process is known", client)
    child = int(job.stage)
    client.cancel(job, force_after=0.0)
    until(lambda: job.is_over, "it is over", client)
    until(lambda: has_ended(child), "the child is gone")


def test_killed_while_idle_nothing_is_lost(client, volume):
    first = works(client, volume)
    os.kill(first, signal.SIGKILL)
    until(lambda: not client.is_alive, "the end is noticed", client)
    assert "killed while waiting for requests" in client.crash_report.sentence
    assert works(client, volume) != first


def test_killed_while_idle_and_asked_before_the_end_is_noticed(client, volume):
    first = works(client, volume)
    os.kill(first, signal.SIGKILL)
    job = client.segment(client.open_image(volume), "plain")
    until(lambda: job.is_over, "it is over", client)
    assert job.state == "done" or "killed" in job.error
    assert works(client, volume) != first


def test_killed_while_running_the_job_fails_with_one_sentence(client, volume):
    image = client.open_image(volume)
    job, waiting = client.segment(image, "deaf"), client.segment(image, "plain")
    until(lambda: job.stage == "windows", "it runs", client)
    os.kill(client.worker_facts["process"], signal.SIGKILL)
    with pytest.raises(RunError, match="killed while segmenting.*ran out of memory.*unharmed.*fresh worker"):
        client.wait(job, PATIENCE)
    assert "\n" not in job.error
    client.wait(waiting, PATIENCE)  # a job that waited is no worse off


def test_killed_while_starting(volume):
    with new_client("worker_fakes:SlowStart") as client:
        client.start()
        pid = client._worker.process_id
        job = client.segment(client.open_image(volume), "plain")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RunError, match="killed while starting"):
            client.wait(job, PATIENCE)


@pytest.mark.parametrize("carrier", ["shared", "wire"])
def test_killed_while_an_image_is_sent(carrier):
    volume = Volume(np.zeros((400, 400, 400), np.float32), np.eye(4))  # 256 MB take a good while to hand over
    with new_client(carrier=carrier) as client:
        works(client, Volume(np.ones((2, 2, 2)), np.eye(4)))
        session, first = client._worker.session, client.worker_facts["process"]
        job = client.segment(client.open_image(volume), "deaf")
        until(lambda: carrier == "wire" or blocks_of(session), "a block is there")
        os.kill(first, signal.SIGKILL)
        with pytest.raises(RunError, match="killed"):
            client.wait(job, PATIENCE)
        assert blocks_of(session) == []
        assert works(client, Volume(np.ones((2, 2, 2)), np.eye(4))) != first


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("segfault", r"crashed while segmenting \(SIGSEGV\)"),
        ("mistake", r"unexpected error ended the worker while segmenting: KeyError: 'no such key'.*report"),
        ("chatter", r"ended while segmenting \(exit code 9\)"),
    ],
)
def test_a_crash_is_one_sentence_with_a_report(client, volume, model, words):
    job = client.segment(client.open_image(volume), model)
    with pytest.raises(RunError, match=words):
        client.wait(job, PATIENCE)
    report = client.crash_report
    assert report.sentence == job.error and 0 < len(report.stderr) <= 20
    assert sys.executable in report.text() and report.stderr[-1] in report.text()
    works(client, volume)


def test_a_worker_that_hangs_at_the_start_is_given_up(volume, monkeypatch):
    monkeypatch.setattr(launching, "CONNECT_SECONDS", 0.5)
    with new_client() as client:
        job = client.segment(client.open_image(volume), "plain")
        os.kill(client._worker.process_id, signal.SIGSTOP)
        with pytest.raises(RunError, match="did not answer within .* of its start and was stopped"):
            client.wait(job, PATIENCE)


def test_a_device_fault_answers_first_and_then_gets_a_fresh_process(client, volume):
    image = client.open_image(volume)
    works(client, volume)
    first = client.worker_facts["process"]
    job = client.segment(image, "device_fault", "cuda:0")
    with pytest.raises(RunError, match="The device cuda:0 failed: CUDA error: an illegal memory access"):
        client.wait(job, PATIENCE)
    until(lambda: not client.is_alive, "it has left", client)
    assert works(client, volume) != first


@pytest.mark.parametrize("running", [True, False])
def test_a_worker_that_receives_garbage_says_so_and_is_replaced(client, volume, running):
    image = client.open_image(volume)
    first = works(client, volume)
    job = client.segment(image, "deaf") if running else None
    client._worker._channel._connection.sendall(b"GET / HTTP/1.1 and so on")
    if job is not None:
        with pytest.raises(RunError, match="did not understand the request: .*do not begin with a message header"):
            client.wait(job, PATIENCE)
    until(lambda: not client.is_alive, "it has left", client)
    assert works(client, volume) != first


def test_a_worker_that_sends_garbage_is_stopped(client, volume):
    job = client.segment(client.open_image(volume), "garbage")
    with pytest.raises(RunError, match="stopped while segmenting. .*not its protocol: .*message header"):
        client.wait(job, PATIENCE)
    works(client, volume)


def test_an_unknown_message_is_answered_and_the_worker_stays(client, volume):
    first = works(client, volume)
    job = client.segment(client.open_image(volume), "patient")
    until(lambda: job.stage == "windows", "it runs", client)
    text = b'{"type":"run_code","code":"1"}'
    client._worker._channel._connection.sendall(launching.protocol.HEADER.pack(b"LKSG", len(text), 0) + text)
    with pytest.raises(RunError, match="did not understand the request: .*unknown message 'run_code'"):
        client.wait(job, PATIENCE)
    assert client.worker_facts["process"] == first


def test_a_stranger_on_the_loopback_port_is_turned_away(volume):
    with new_client(transport="loopback") as client:
        client.start()
        port = client._worker._listener.getsockname()
        with socket.create_connection(port) as stranger:
            stranger.sendall(b"0" * 64)
            assert stranger.recv(1) == b""
        works(client, volume)


def test_behind_a_launcher_that_stays_as_its_parent_everything_works_the_same(tmp_path, volume):
    launcher = tmp_path / "PythonSlicer"  # as Slicer's: it starts the real Python and waits for it
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
    launcher.chmod(0o755)
    with new_client(interpreter=str(launcher)) as client:
        first = works(client, volume)
        assert first != client._worker.process_id
        job = client.segment(client.open_image(volume), "deaf")
        until(lambda: job.stage == "windows", "it runs", client)
        client.cancel(job, force_after=0.1)
        until(lambda: job.is_over, "it is over", client)
        until(lambda: has_ended(first), "the real worker has ended")
        second = works(client, volume)
    until(lambda: has_ended(second), "the real worker has ended")


def test_an_interpreter_that_does_not_exist(volume):
    with new_client(interpreter="/nowhere/python") as client:
        job = client.segment(client.open_image(volume), "plain")
        with pytest.raises(InputError, match="'/nowhere/python' cannot be started: No such file"):
            client.wait(job, PATIENCE)
        assert not client.is_alive


def test_an_interpreter_that_is_no_python(volume):
    with new_client(interpreter="/bin/false") as client:
        with pytest.raises(RunError, match=r"could not be started with the Python interpreter /bin/false"):
            client.wait(client.segment(client.open_image(volume), "plain"), PATIENCE)


def test_an_interpreter_without_numpy_names_the_package_and_the_interpreter(tmp_path, volume):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    bare = str(tmp_path / "bare" / "bin" / "python")
    with new_client(interpreter=bare) as client:
        with pytest.raises(RunError, match=f"'numpy', 'torch'.* are missing in {bare}: install them there with"):
            client.wait(client.segment(client.open_image(volume), "plain"), PATIENCE)


def test_another_version_is_refused_with_a_sentence(client, volume, monkeypatch):
    monkeypatch.setattr(launching, "__version__", "0.0.1")
    with pytest.raises(RunError, match=r"The client is LKSegment 0.0.1 .*restart the program"):
        client.wait(client.segment(client.open_image(volume), "plain"), PATIENCE)
    monkeypatch.undo()
    works(client, volume)


def test_another_protocol_is_refused_with_a_sentence(client, volume, monkeypatch):
    monkeypatch.setattr(launching.protocol, "PROTOCOL_VERSION", 99)
    with pytest.raises(RunError, match=r"\(protocol 99\), the worker is LKSegment .* \(protocol 2\)"):
        client.wait(client.segment(client.open_image(volume), "plain"), PATIENCE)


def test_close_leaves_no_process_thread_descriptor_or_block(volume):
    def held():
        gc.collect()
        me = psutil.Process()
        return len(me.children(recursive=True)), threading.active_count(), me.num_fds()

    before = held()
    for transport in ("inherited", "loopback"):
        client = new_client(transport=transport)
        works(client, volume)
        session = client._worker.session
        running = client.segment(client.open_image(volume), "deaf")
        client.close()
        assert running.state == "cancelled" and not client.is_alive
        assert held() == before and blocks_of(session) == []


def test_a_closed_client_may_be_used_again(client, volume):
    first = works(client, volume)
    client.close()
    client.close()
    assert works(client, volume) != first


PARENT = """
    import sys, time
    import numpy as np
    from LKSegmentLib.engine.client import EngineClient
    from LKSegmentLib.volumes import Volume
    client = EngineClient(environment={{"PYTHONPATH": {here!r}}}, service="worker_fakes:FakeService")
    image = client.open_image(Volume(np.ones({shape}, np.float32), np.eye(4)))
    client.wait(client.models())
    job = client.segment(image, {model!r}) if {model!r} else None
    while job and {stage!r} and job.stage != {stage!r}:
        client.poll()
    print(client.worker_facts["process"], client._worker.session, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("model", "stage", "shape"),
    [("", "", (2, 2, 2)), ("deaf", "windows", (2, 2, 2)), ("deaf", "", (300, 300, 300))],
    ids=["idle", "running", "sending"],
)
def test_nothing_outlives_a_parent_that_is_killed(model, stage, shape):
    script = textwrap.dedent(PARENT.format(here=HERE, model=model, stage=stage, shape=shape))
    environment = {**os.environ, "PYTHONPATH": str(launching.library_parent())}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        worker, session = parent.stdout.readline().decode().split()
        assert psutil.pid_exists(int(worker))
        parent.kill()
        parent.wait()
        until(lambda: has_ended(int(worker)), "the worker has ended")
    assert blocks_of(session) == []


def test_abandoned_blocks_are_swept_and_others_are_not(monkeypatch):
    folder = shared_arrays.blocks_folder()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    old, young, alive = f"lks_{ended.pid}_0123abcd_c1", f"lks_{ended.pid}_0123abcd_c2", f"lks_{os.getpid()}_0123abcd_c1"
    try:
        for name in (old, young, alive):
            (folder / name).write_bytes(b"x")
        for name in (old, alive):
            os.utime(folder / name, (1.0, 1.0))
        EngineClient()
        assert [(folder / name).exists() for name in (old, young, alive)] == [False, True, True]
    finally:
        shared_arrays.remove_names([old, young, alive])
