"""A run's metrics as curves that TensorBoard draws."""

import socket
import struct
import time
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from flax_transformer.training.appended_file import AppendedFile


class Curves:
    """Writes an event file into `directory`; what TensorBoard has of `step` and later goes.

    Of tensorboardX only the format is used: its writer hangs for ever once its thread has met an
    error, such as a full disk.
    """

    def __init__(self, directory: Path, step: int):
        now = time.time()
        start = SessionLog(status=SessionLog.START)
        header = (
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, step=step, session_log=start),
        )
        self._file = AppendedFile(
            # TensorBoard reads files in the order of their names.
            directory / f"events.out.tfevents.{now:.6f}.{socket.gethostname()}",
            "points",
            header=b"".join(map(_record, header)),
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds a point to the curve of each name."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._file.append(
            _record(Event(wall_time=time.time(), step=step, summary=Summary(value=points)))
        )

    def close(self) -> None:
        self._file.close()


def _record(event: Event) -> bytes:
    """`event` in the framing of TFRecord files: length and data, each with its checksum."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))
