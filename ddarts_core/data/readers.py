"""Processes that read images for this process. None of them is a fork of this process.

A fork of this process would copy what must not be copied: the locks that this process holds, which the copy would keep
for as long as it lives; the sockets of libraries; and the locks of libraries, in whatever state a thread has left them
at that moment. So readers are forked from a clean server (`forkserver`), which is started by exec: the server has one
thread and no file of this process. Nothing that is open or locked in this process can reach the readers, not even a
lock that somebody adds later. The server imports torch once, and the readers share that memory.

A reader ends when the other end of its pipe is closed. Only this process has that end. So a reader ends together with
this process, even if this process is killed, and the server ends after the last reader. Readers ignore the signals of
Ctrl-C and of a scheduler, which reach all processes of a group at once: this process decides what an interruption
means.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..ground.errors import ReaderDied, UserError
from ..ground.files import short_temp

#: Batches that each reader has before it, or done, beside the one that is waited for.
AHEAD = 2

#: Most readers that are chosen when nobody says how many.
MOST = 16

#: Seconds that a reader has to end by itself: it first does the batch that it is in.
GRACE_S = 10.0

#: What multiprocessing adds to the name of the folder for temporary files.
SOCKET = "/pymp-12345678/listener-12345678"

#: What the server imports, for all readers.
IMPORTS = ["ddarts_core.data.streaming", "torchvision.transforms.v2", "torchvision.datasets"]

_pools: weakref.WeakSet[Readers] = weakref.WeakSet()


def suitable(cores: float) -> int:
    """Return how many readers suit a process that has so many cores. If it has several, it keeps one for itself.

    Example:
        >>> [suitable(cores) for cores in (0.5, 1, 2, 8, 64)]
        [1, 1, 1, 7, 16]
    """
    return max(1, min(MOST, int(cores) - 1))


def own_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def end_readers() -> None:
    """End all readers of this process. Readers that are needed later are started again."""
    for pool in list(_pools):
        pool.close()


class Readers:
    """Processes that read for one set of images. They are started when they are first needed.

    Several passes may be read at the same time. What is read depends neither on the number of readers nor on how far
    ahead they are.

    Args:
        work: the function that a reader applies to each question. It returns a uint8 tensor of any shape, or raises
            `UserError`. It is pickled once for each reader.
        number: how many readers there are. With 0 this process does the work itself, when an answer is due.
    """

    def __init__(self, work: Callable[[Any], Tensor], number: int) -> None:
        self.work = work
        self.number = number
        self._asked = 0
        self._found: dict[int, Tensor | Exception] = {}
        self._unwanted: set[int] = set()
        self._members: list[tuple[BaseProcess, Connection]] = []
        self._end: Any = None
        _pools.add(self)

    def answers(self, questions: Iterable[Any]) -> Iterator[Tensor]:
        """Yield the answer of the work to each question, in the order of the questions.

        Raises:
            UserError: the work refused a question.
            ReaderDied: a reader was killed.
        """
        if not self.number:
            yield from map(self.work, questions)
            return
        if not self._members:
            self._start()
        tickets: deque[int] = deque()
        try:
            for question in questions:
                tickets.append(self._ask(question))
                if len(tickets) > AHEAD * self.number:
                    yield self._answer(tickets.popleft())
            while tickets:
                yield self._answer(tickets.popleft())
        finally:
            for ticket in tickets:
                if self._found.pop(ticket, None) is None:
                    self._unwanted.add(ticket)

    def close(self) -> None:
        """End the readers. They are started again when they are needed."""
        if self._end is not None:
            self._end()
        self._end, self._members = None, []
        self._found, self._unwanted = {}, set()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTS)
        members: list[tuple[BaseProcess, Connection]] = []
        # At the end of the program before multiprocessing waits for its processes, which may still read.
        self._end = util.Finalize(self, _end, args=(members,), exitpriority=10)
        for _ in range(self.number):
            here, there = context.Pipe()
            reader = context.Process(target=_serve, args=(there, self.work), name="reader", daemon=True)
            with _starting():
                reader.start()
            there.close()
            members.append((reader, here))
        self._members = members

    def _ask(self, question: Any) -> int:
        ticket = self._asked
        self._asked += 1
        reader, connection = self._member(ticket)
        try:
            connection.send((ticket, question))
        except OSError as error:
            raise _death(reader) from error
        return ticket

    def _answer(self, ticket: int) -> Tensor:
        reader, connection = self._member(ticket)
        while ticket not in self._found:
            try:
                number, found = _receive(connection)
            except (EOFError, OSError) as error:
                raise _death(reader) from error
            if number in self._unwanted:
                self._unwanted.remove(number)
            else:
                self._found[number] = found
        answer = self._found.pop(ticket)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _member(self, ticket: int) -> tuple[BaseProcess, Connection]:
        return self._members[ticket % self.number]


def _death(reader: BaseProcess) -> ReaderDied:
    return ReaderDied(
        f"process {reader.pid}, which read images, was killed: if memory is short, lower data.num_workers or "
        "search.batch_size"
    )


def _end(members: list[tuple[BaseProcess, Connection]]) -> None:
    for _, connection in members:
        connection.close()
    for reader, _ in members:
        reader.join(GRACE_S)
        if reader.exitcode is None:
            reader.kill()
            reader.join()


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Within the block a reader can be started: the program's main module is hidden, and its socket has a short path.

    Else each reader would run the main module again: Ray's main module would import Ray in every reader, and a user's
    script without a guard would begin anew.

    Raises:
        UserError: there is no folder with a short name.
    """
    short = short_temp(len(SOCKET))
    main, folder = sys.modules["__main__"], tempfile.tempdir
    sys.modules["__main__"], tempfile.tempdir = ModuleType("__main__"), short
    try:
        yield
    finally:
        sys.modules["__main__"], tempfile.tempdir = main, folder


# --- what passes between a reader and the process that it reads for -------------------------------------------------


def _receive(connection: Connection) -> tuple[int, Tensor | Exception]:
    ticket, shape = connection.recv()
    if isinstance(shape, Exception):
        return ticket, shape
    if not shape.numel():
        return ticket, torch.empty(shape, dtype=torch.uint8)
    handle = recv_handle(connection)
    try:
        memory = mmap.mmap(handle, shape.numel())
    finally:
        os.close(handle)
    return ticket, torch.frombuffer(memory, dtype=torch.uint8).view(shape)


def _send(connection: Connection, ticket: int, answer: Tensor | Exception) -> None:
    """Send an answer to the process that asked, a tensor as a file in memory that has no name.

    Nothing is left of such a file when both processes have ended. It takes no room in /dev/shm, which is small in
    containers.
    """
    connection.send((ticket, answer if isinstance(answer, Exception) else answer.shape))
    if isinstance(answer, Exception) or not answer.numel():
        return
    handle = os.memfd_create("images")
    try:
        os.truncate(handle, answer.numel())
        with mmap.mmap(handle, answer.numel()) as memory:
            memory.write(answer.contiguous().numpy().tobytes())
        send_handle(connection, handle, None)
    finally:
        os.close(handle)


def _serve(connection: Connection, work: Callable[[Any], Tensor]) -> None:
    """The loop that a reader process runs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, ConnectionError):  # nobody wants more
        while True:
            ticket, question = connection.recv()
            answer: Tensor | Exception
            try:
                answer = work(question)
            except UserError as error:
                answer = error
            except Exception:  # whatever it was: the process that waits for the images is told
                answer = RuntimeError(f"in a process that reads images: {traceback.format_exc()}")
            _send(connection, ticket, answer)
