"""Frames and messages: what may be sent, and what is refused with which sentence."""

from __future__ import annotations

import copy
import io
import json
import re
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from LKSegmentLib.engine import protocol, shared_arrays
from LKSegmentLib.engine.channel import Channel
from LKSegmentLib.engine.protocol import HEADER, MAGIC, ProtocolError
from LKSegmentLib.engine.results import SegmentResult, encoded
from LKSegmentLib.packages.labels import label_from
from LKSegmentLib.packages.manifest import MOST_OUTPUTS
from LKSegmentLib.volumes import Volume

WIRE = {"carrier": "wire", "dtype": "<f4", "shape": [2, 3]}
SHARED = {"carrier": "shared", "dtype": "<i2", "shape": [4], "name": "lks_12_0123abcd_c1"}
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
EXAMPLES = {
    "client": [
        {"type": "hello", "protocol": 1, "library": "0.1.0", "session": "lks_12_0123abcd", "carrier": "shared"},
        {"type": "open_image", "image": 1, "ijk_to_ras": [1.0] * 16, "arrays": [WIRE]},
        {"type": "close_image", "image": 1},
        {"type": "segment", "job": 2, "image": 1, "model": "Ärztin", "device": "cuda:1"},
        {
            "type": "click",
            "job": 2,
            "image": 1,
            "model": "a",
            "device": "cpu",
            "points": [[1, 2.5, -3, True]],
            "maps": False,
        },
        {"type": "exposed", "job": 3, "model": "a"},
        {
            "type": "inspect",
            "job": 2,
            "image": 1,
            "model": "a",
            "device": "cpu",
            "points": [],
            "layers": ["gate #5"],
        },
        {
            "type": "reach",
            "job": 2,
            "image": 1,
            "model": "a",
            "device": "cpu",
            "points": [[1, 2.5, -3, True]],
            "ras": [1, -2.5, 3],
            "label": 4,
            "around_mm": 7.5,
        },
        {"type": "models", "job": 3},
        {"type": "doctor", "job": 3},
        {"type": "cancel", "job": 3},
        {"type": "received", "names": ["lks_12_0123abcd_w1"]},
        {"type": "goodbye"},
    ],
    "worker": [
        {
            "type": "welcome",
            "protocol": 1,
            "library": "0.1.0",
            "python": "3.12.1",
            "torch": None,
            "numpy": "2.0",
            "process": 7,
            "interpreter": "/usr/bin/python3",
        },
        {"type": "refused", "sentence": "No."},
        {"type": "plan", "job": 2, "sentence": "2 maps, 3 MB."},
        {"type": "progress", "job": 2, "stage": "windows", "fraction": 0.5},
        {"type": "done", "job": 2, "result": {}, "warnings": ["Careful."], "arrays": [WIRE, SHARED]},
        {"type": "failed", "job": 2, "category": "input", "sentence": "No."},
        {"type": "cancelled", "job": 2},
        {"type": "fault", "sentence": "What?"},
        {"type": "received", "names": []},
    ],
}
ALL = [(side, message) for side, messages in EXAMPLES.items() for message in messages]


def names(value):
    return value["type"] if isinstance(value, dict) else str(value)


def changed(message, **changes):
    return {**copy.deepcopy(message), **changes}


def test_every_message_has_an_example_here():
    for side, messages in EXAMPLES.items():
        assert {m["type"] for m in messages} == set(protocol.FIELDS[side])


@pytest.mark.parametrize("side", ["client", "worker"])
def test_the_documentation_has_every_message_and_field(side):
    part = DOCUMENT.read_text(encoding="utf-8").split(f"## Messages from the {side}")[1].split("\n##")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", part, re.MULTILINE))
    assert set(rows) == set(protocol.FIELDS[side])
    for kind, fields in protocol.FIELDS[side].items():
        assert [field for field in fields if f"`{field}`" not in rows[kind]] == []


def test_the_documented_bytes_are_those_that_are_sent():
    frame = protocol.packed({"type": "cancel", "job": 7}, "client")
    assert frame[:16].hex(" ").upper() == "4C 4B 53 47 19 00 00 00 00 00 00 00 00 00 00 00"
    assert frame[16:] == b'{"type":"cancel","job":7}'


@pytest.mark.parametrize(("side", "message"), ALL, ids=names)
def test_a_good_message_survives_the_way(side, message):
    frame = protocol.packed(message, side)
    length, payload = protocol.unpacked_header(frame[: HEADER.size])
    assert length == len(frame) - 16 and payload == 0
    assert protocol.checked(protocol.unpacked_text(frame[16:]), side) == message


@pytest.mark.parametrize(("side", "message"), ALL, ids=names)
def test_each_field_is_required_and_checked_and_others_are_refused(side, message):
    for field in protocol.FIELDS[side][message["type"]]:
        with pytest.raises(ProtocolError, match=f"lacks the field '{field}'"):
            protocol.checked({k: v for k, v in message.items() if k != field}, side)
        with pytest.raises(ProtocolError, match=f"has {field} = <object.*; it must be "):
            protocol.checked(changed(message, **{field: object()}), side)
    if message["type"] not in protocol.HANDSHAKE:
        with pytest.raises(ProtocolError, match="unknown field 'extra'"):
            protocol.checked(changed(message, extra=1), side)


@pytest.mark.parametrize(("side", "message"), ALL, ids=names)
def test_nobody_may_send_the_messages_of_the_other_side(side, message):
    other = "worker" if side == "client" else "client"
    if message["type"] != "received":
        with pytest.raises(ProtocolError, match="unknown message"):
            protocol.checked(message, other)


CLICK = EXAMPLES["client"][4]
INSPECT = EXAMPLES["client"][6]
REACH = EXAMPLES["client"][7]
OPEN = EXAMPLES["client"][1]


@pytest.mark.parametrize(
    "message",
    [
        changed(CLICK, points=[[1, 2, 3]]),
        changed(CLICK, points=[[1, 2, 3, 1]]),
        changed(CLICK, points=[[1, 2, float("inf"), True]]),
        changed(CLICK, points=[[1, 2, True, True]]),
        changed(CLICK, points=[[0, 0, 0, True]] * 4097),
        changed(CLICK, maps=1),
        changed(CLICK, job=True),
        changed(INSPECT, layers="gate"),
        changed(INSPECT, layers=["x" * 201]),
        changed(INSPECT, layers=["gate"] * 128),
        changed(INSPECT, layers=[5]),
        changed(REACH, ras=[1, 2]),
        changed(REACH, ras=[1, 2, float("nan")]),
        changed(REACH, label=-1),
        changed(REACH, label=True),
        changed(REACH, around_mm=-1.0),
        changed(CLICK, job=-1),
        changed(CLICK, job=1.0),
        changed(CLICK, model="x" * 4097),
        changed(OPEN, ijk_to_ras=[1.0] * 15),
        changed(OPEN, ijk_to_ras=[float("nan")] * 16),
        changed(OPEN, arrays=[changed(WIRE, dtype="|O")]),
        changed(OPEN, arrays=[changed(WIRE, dtype=["<f4"])]),
        changed(OPEN, arrays=[changed(WIRE, shape=[-1])]),
        changed(OPEN, arrays=[changed(WIRE, shape=[1] * 6)]),
        changed(OPEN, arrays=[changed(WIRE, shape=[1 << 17, 1 << 17])]),
        changed(OPEN, arrays=[WIRE] * 257),
        changed(OPEN, arrays=[changed(WIRE, name="lks_12_0123abcd_c1")]),
        changed(OPEN, arrays=[changed(SHARED, name="../../etc/passwd")]),
        changed(OPEN, arrays=[changed(SHARED, name="lks_12_0123abcd_c1/../x")]),
        changed(OPEN, arrays=[changed(SHARED, carrier="file")]),
    ],
)
def test_wrong_values_are_refused(message):
    with pytest.raises(ProtocolError, match="it must be"):
        protocol.checked(message, "client")


@pytest.mark.parametrize(
    "message", [changed(INSPECT, layers=None), changed(REACH, ras=None, label=None, around_mm=None)]
)
def test_what_may_be_left_open_may(message):
    assert protocol.checked(message, "client") == message


@pytest.mark.parametrize("value", [None, [], "text", 1, {"type": 5}, {"type": ["hello"]}, {}])
def test_json_that_is_no_message_is_refused(value):
    with pytest.raises(ProtocolError):
        protocol.checked(value, "client")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b'{"a": NaN}', b"[" * 100000])
def test_text_that_is_no_json_is_refused(text):
    with pytest.raises(ProtocolError, match="not JSON in UTF-8"):
        protocol.unpacked_text(text)


def test_limits_hold_before_anything_is_read():
    with pytest.raises(ProtocolError, match="do not begin with a message header"):
        protocol.unpacked_header(b"GET / HTTP/1.1\r\n")
    with pytest.raises(ProtocolError, match="larger than"):
        protocol.unpacked_header(HEADER.pack(MAGIC, protocol.MAX_JSON_BYTES + 1, 0))
    with pytest.raises(ProtocolError, match="larger than"):
        protocol.unpacked_header(HEADER.pack(MAGIC, 2, protocol.MAX_PAYLOAD_BYTES + 1))
    large = {"type": "done", "job": 1, "result": {"text": "x" * protocol.MAX_JSON_BYTES}}
    large |= {"warnings": [], "arrays": []}
    with pytest.raises(ProtocolError, match="larger than"):
        protocol.packed(large, "worker")


def test_a_result_with_as_many_labels_as_a_package_may_have_is_no_larger_than_a_message():
    codes = dict.fromkeys(("type", "category", "type_modifier"), "SCT^1234567890^A structure with a rather long name")
    values = [{"name": f"label {number} of a large atlas", "terminology": codes} for number in range(MOST_OUTPUTS)]
    labels = [label_from(value, number, "The test") for number, value in enumerate(values)]
    volume = Volume(np.zeros((1, 1, 1), np.uint16), np.eye(4))
    result = SegmentResult(volume, [label.name for label in labels], [label.to_json() for label in labels])
    text, _ = encoded(result)
    protocol.packed({"type": "done", "job": 1, "result": text, "warnings": [], "arrays": []}, "worker")


def test_values_that_json_cannot_carry_are_refused():
    done = {"type": "done", "job": 1, "warnings": [], "arrays": []}
    for value in (float("nan"), np.float32(1), {1, 2}):
        with pytest.raises(ProtocolError, match="JSON cannot carry"):
            protocol.packed({**done, "result": {"range": value}}, "worker")


# -- the channel: messages with arrays over a real pair of sockets ----------------------------------------


@pytest.fixture
def ends():
    one, two = socket.socketpair()
    session = shared_arrays.new_session()
    client, worker = Channel(one, "client", session), Channel(two, "worker", session)
    yield client, worker
    for channel in (client, worker):
        channel.shutdown()
        channel.close()
    assert shared_arrays.remove_session(session) == []


def handed_over(sender, receiver, message, arrays):
    thread = threading.Thread(target=sender.send, args=(message, arrays))
    thread.start()
    received = receiver.receive()
    thread.join()
    return received


DONE = {"type": "done", "job": 1, "result": {}, "warnings": []}


@pytest.mark.parametrize("shared", [True, False])
def test_arrays_arrive_unchanged_by_either_carrier(ends, shared):
    client, worker = ends
    worker.shared = shared
    arrays = [
        np.arange(300000, dtype=np.int32).reshape(100, 50, 60),
        np.zeros((0, 3, 3), np.uint8),
        np.array(5.5),
        np.arange(24, dtype=">f8").reshape(2, 3, 4)[::-1, :, ::2],
        np.array([True, False]),
    ]
    message, received = handed_over(worker, client, DONE, arrays)
    carriers = [descriptor["carrier"] for descriptor in message["arrays"]]
    assert carriers == (["shared", "wire", "shared", "shared", "shared"] if shared else ["wire"] * 5)
    for sent, got in zip(arrays, received, strict=True):
        assert got.shape == sent.shape and np.array_equal(got, sent) and got.flags.writeable
    if shared:
        assert len(worker._in_flight) == 4
        assert worker.receive()[0]["type"] == "received"
        assert not worker._in_flight


def test_full_shared_memory_falls_back_to_the_wire(ends, monkeypatch):
    client, worker = ends

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_arrays, "open", lambda file, mode, buffering: Full(file, mode), raising=False)
    message, received = handed_over(worker, client, DONE, [np.ones(9, np.uint16)])
    assert message["arrays"][0]["carrier"] == "wire" and received[0].tolist() == [1] * 9


def sent_raw(ends, text, payload=b"", announced=None):
    client, worker = ends
    frame = HEADER.pack(MAGIC, len(text), len(payload) if announced is None else announced) + text + payload
    worker._connection.sendall(frame)
    return client


def test_array_bytes_that_do_not_match_the_message_are_refused(ends):
    text = json.dumps({**DONE, "arrays": [WIRE]}).encode()
    with pytest.raises(ProtocolError, match="announces 24 bytes of arrays but carries 8"):
        sent_raw(ends, text, b"12345678").receive()
    assert ends[0].broken


def test_blocks_of_other_connections_are_not_touched(ends):
    with pytest.raises(ProtocolError, match="does not belong to this connection"):
        sent_raw(ends, json.dumps({**DONE, "arrays": [SHARED]}).encode()).receive()


def test_a_block_smaller_than_announced_is_refused(ends):
    name = f"{ends[0].session}_w9"
    block = shared_arrays.Block(name, np.zeros(8, np.uint8))
    try:
        text = json.dumps({**DONE, "arrays": [changed(SHARED, name=name, shape=[1000])]}).encode()
        with pytest.raises(ProtocolError, match="is not the one announced"):
            sent_raw(ends, text).receive()
    finally:
        block.close()
        shared_arrays.remove_names([name])


def test_links_are_not_followed(ends, tmp_path):
    (tmp_path / "secret").write_bytes(b"12345678")
    name = f"{ends[0].session}_w9"
    link = shared_arrays.blocks_folder() / name
    link.symlink_to(tmp_path / "secret")
    try:
        text = json.dumps({**DONE, "arrays": [changed(SHARED, name=name)]}).encode()
        with pytest.raises(ProtocolError, match="cannot be opened"):
            sent_raw(ends, text).receive()
    finally:
        link.unlink()


def test_a_bad_message_in_a_good_frame_leaves_the_stream_usable(ends):
    client, worker = ends
    with pytest.raises(ProtocolError, match="unknown message"):
        sent_raw(ends, b'{"type": "nonsense"}').receive()
    assert not client.broken
    worker.send({"type": "cancelled", "job": 4})
    assert client.receive() == ({"type": "cancelled", "job": 4}, [])


def test_the_end_of_the_connection_is_no_error(ends):
    client, worker = ends
    worker._connection.sendall(HEADER.pack(MAGIC, 100, 0) + b"half a mess")
    worker.shutdown()
    assert client.receive() is None


def test_blocks_of_a_message_that_could_not_be_sent_are_gone(ends):
    client, worker = ends
    client.close()
    with pytest.raises(OSError):
        worker.send(DONE, [np.ones(1000)])
    with pytest.raises(ProtocolError, match="cannot travel"):
        worker.send(DONE, [np.ones(10), np.array([1 + 2j])])
    assert not worker._in_flight and shared_arrays.remove_session(worker.session) == []
