"""A connection that carries checked messages with arrays. How an array travels is hidden here.

``Channel`` gives every array of a message to a carrier: shared memory between processes of one machine, bytes
after the message on the wire otherwise (and whenever shared memory is full or missing). A remote worker needs
another socket, not another protocol.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from LKSegmentLib.engine import protocol, shared_arrays
from LKSegmentLib.engine.protocol import Message, ProtocolError, Side
from LKSegmentLib.engine.shared_arrays import Array, Block, NoSharedMemory, bytes_of
from LKSegmentLib.errors import RunError


class Channel:
    """One end of a connection. ``send`` may be called from several threads, ``receive`` from one.

    ``session`` begins the names of shared-memory blocks; ``shared`` chooses shared memory for arrays to send.
    """

    def __init__(self, connection: socket.socket, side: Side, session: str = "", shared: bool = True) -> None:
        self.side = side
        self.other: Side = "worker" if side == "client" else "client"
        self.session = session
        self.shared = shared
        self._connection = connection
        self._sending = threading.Lock()
        self._in_flight: dict[str, Block] = {}
        self._sent_blocks = 0
        self.broken = False
        """After a ProtocolError from ``receive``: whether the rest of the stream cannot be read either."""

    # -- sending -------------------------------------------------------------------------------------------

    def send(self, message: Message, arrays: Sequence[Array] | None = None) -> None:
        """Sends one message; ``arrays`` become its field ``arrays``.

        Raises ProtocolError when the message is not one this side may send, OSError when the other side is gone.
        """
        with self._sending:
            on_wire: list[Array] = []
            names: list[str] = []
            try:
                if arrays is not None:
                    message = {**message, "arrays": [self._described(array, on_wire, names) for array in arrays]}
                payload_bytes = sum(array.nbytes for array in on_wire)
                self._connection.sendall(protocol.packed(message, self.side, payload_bytes))
                for array in on_wire:
                    self._connection.sendall(bytes_of(array))
            except (OSError, MemoryError, ProtocolError):
                self.release(names)
                shared_arrays.remove_names(names)
                raise

    def _described(self, array: Array, on_wire: list[Array], names: list[str]) -> dict[str, Any]:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
        descriptor: dict[str, Any] = {"dtype": little.dtype.str, "shape": list(little.shape)}
        if little.dtype.str not in protocol.DTYPES:
            raise ProtocolError(f"An array of type {array.dtype} cannot travel; convert it to one of numpy's numbers.")
        if self.shared and little.nbytes:
            try:
                name = self._stored(little)
            except NoSharedMemory:
                pass  # /dev/shm is missing or full: the bytes follow the message instead
            else:
                names.append(name)
                return {**descriptor, "carrier": "shared", "name": name}
        on_wire.append(little)
        return {**descriptor, "carrier": "wire"}

    def _stored(self, array: Array) -> str:
        self._sent_blocks += 1
        name = f"{self.session}_{self.side[0]}{self._sent_blocks}"
        self._in_flight[name] = Block(name, array)
        return name

    def release(self, names: Sequence[str]) -> None:
        """Lets go of blocks that the other side has copied out."""
        for name in names:
            block = self._in_flight.pop(name, None)
            if block is not None:
                block.close()

    # -- receiving -----------------------------------------------------------------------------------------

    def receive(self) -> tuple[Message, list[Array]] | None:
        """The next message and its arrays, copied out of their carrier; None when the other side has closed.

        Blocks until there is one. Raises ProtocolError for bytes that are no message of the other side.
        """
        header = self._exactly(protocol.HEADER.size)
        if header is None:
            return None
        self.broken = True  # until the whole frame has been read
        json_bytes, payload_bytes = protocol.unpacked_header(bytes(header))
        text = self._exactly(json_bytes)
        if text is None:
            return None
        if not payload_bytes:
            self.broken = False
        message = protocol.checked(protocol.unpacked_text(bytes(text)), self.other)
        descriptors = message.get("arrays", [])
        announced = sum(protocol.array_bytes(d) for d in descriptors if d["carrier"] == "wire")
        if announced != payload_bytes:
            raise ProtocolError(
                f"The message {message['type']!r} announces {announced} bytes of arrays but carries {payload_bytes}."
            )
        arrays: list[Array] = []
        for descriptor in descriptors:
            array = self._taken(descriptor)
            if array is None:
                return None
            arrays.append(array)
        self.broken = False
        if message["type"] == "received":
            self.release(message["names"])
        shared = [d["name"] for d in descriptors if d["carrier"] == "shared"]
        if shared:
            with contextlib.suppress(OSError):  # a sender that is gone needs no receipt
                self.send({"type": "received", "names": shared})
        return message, arrays

    def _taken(self, descriptor: Message) -> Array | None:
        try:
            array: Array = np.empty(descriptor["shape"], dtype=np.dtype(descriptor["dtype"]))
        except MemoryError as error:
            wanted = protocol.array_bytes(descriptor)
            raise ProtocolError(f"There is not enough memory for an array of {wanted} bytes.") from error
        if descriptor["carrier"] == "wire":
            if array.nbytes and not self._filled(bytes_of(array)):
                return None
            return array
        name = descriptor["name"]
        if not name.startswith(self.session + "_"):
            raise ProtocolError(f"The shared-memory block {name} does not belong to this connection.")
        try:
            shared_arrays.fetch(name, array)
        except RunError as error:
            raise ProtocolError(str(error)) from error
        return array

    def _exactly(self, count: int) -> bytearray | None:
        data = bytearray(count)
        return data if self._filled(memoryview(data)) else None

    def _filled(self, target: memoryview) -> bool:
        done = 0
        while done < len(target):
            try:
                count = self._connection.recv_into(target[done:])
            except OSError:  # reset by a process that was killed: the same as its end
                return False
            if count == 0:
                return False
            done += count
        return True

    # -- ending --------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Wakes a thread that waits in ``receive`` or ``send``; they see the end of the connection."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def finish(self, patience: float = 2.0) -> None:
        """No message leaves after this; waits up to ``patience`` seconds for one that is being sent.

        For a process about to end: it may then remove its blocks, and no new one appears.
        """
        self._sending.acquire(timeout=patience)

    def close(self) -> None:
        """Closes the connection and lets go of blocks still on their way; call after ``shutdown``."""
        self._connection.close()
        self.release(list(self._in_flight))

