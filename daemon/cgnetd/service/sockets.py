# SPDX-License-Identifier: Apache-2.0
"""What a worker does with sockets: closing flows in every network namespace, and asking which congestion controls TCP
has. The daemon itself may neither look into other namespaces nor make internet sockets.

Must not know policies.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgnetd.errors import CgnetdError
from cgnetd.kernel import congestion, features
from cgnetd.kernel.destroy import Doom
from cgnetd.kernel.maps import Capacity
from cgnetd.kernel.pins import open_pins
from cgnetd.kernel.store import Store
from cgnetd.service.closing import close_all
from cgnetd.service.worker import SOCKETS, Channel, Fields, WorkerError, ask, pack, path_of, unpack

_ANSWER_S = 60.0
_DOOM_FIELDS = len(dataclasses.fields(Doom))


def has_congestion(name: str) -> bool:
    """Whether TCP has a congestion control, loading its module if there is one. KernelError, WorkerError."""
    path = path_of(SOCKETS)
    if path is None:
        return congestion.available(name)
    answer = ask(SOCKETS, path, {"congestion": name}, _ANSWER_S)
    if "failed" in answer:
        raise WorkerError(str(answer["failed"]))
    return answer.get("available") is True


async def have_closed(path: Path, pin_dir: Path, dooms: Sequence[Doom]) -> list[int | CgnetdError]:
    """The same as closing.close_all, by the worker. WorkerError if it cannot be had, or will not understand."""
    channel = await Channel.open(SOCKETS, path)
    try:
        channel.send({"close": [dataclasses.astuple(doom) for doom in dooms], "pins": str(pin_dir)})
        answer = await channel.receive(_ANSWER_S)
    finally:
        channel.close()
    if "failed" in answer:
        raise WorkerError(str(answer["failed"]))
    closed = answer.get("closed")
    if not isinstance(closed, list) or len(closed) != len(dooms):
        raise WorkerError(f"hear worker {SOCKETS}: what it says is no answer")
    return [found if type(found) is int else WorkerError(str(found)) for found in closed]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The worker's end of one connection: one question, one answer. ValueError for what is no question."""
    line = await reader.readline()
    if line:
        writer.write(pack(answer(unpack(line))))


def answer(question: Fields) -> Fields:
    """What is done, or why it could not be (`failed`). ValueError for what is no question."""
    try:
        if isinstance(name := question.get("congestion"), str):
            return {"available": congestion.available(name)}
        if isinstance(pins := question.get("pins"), str):
            return {"closed": _close(Path(pins), _dooms(question.get("close")))}
    except CgnetdError as error:
        return {"failed": str(error)}
    raise ValueError("neither flows nor a congestion control are asked for")


def _close(pin_dir: Path, dooms: Sequence[Doom]) -> list[int | str]:
    with Store(pin_dir, open_pins(pin_dir, Capacity(), create_missing=False)) as store:
        closed = close_all(store, features.probe(), dooms)
    return [found if isinstance(found, int) else str(found) for found in closed]


def _dooms(said: Any) -> list[Doom]:
    if not isinstance(said, list):
        raise ValueError("no flows are named")
    for values in said:
        if not isinstance(values, list) or len(values) != _DOOM_FIELDS or not all(type(one) is int for one in values):
            raise ValueError("flows are named by five numbers")
    return [Doom(*values) for values in said]
