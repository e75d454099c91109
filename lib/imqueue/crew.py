"""The child processes of one trial, started from a forkserver that is warm with all that they import."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from imqueue import ledger, load, registry
from imqueue.backend import BackendError
from imqueue.control import Control
from imqueue.exporter import Source
from imqueue.facts import Facts, Window
from imqueue.ledger import CPU_NS, PID, STATE, THREAD, Page, State
from imqueue.load import Post
from imqueue.servers import Server, ServerError, ServerMissing
from imqueue.servers.guard import Guard
from imqueue.usage import cores_busy_s, programs_below
from imqueue.workload import BadInput

END_MAX_S = 5.0  # how long the kernel may take to end a killed process

_context = multiprocessing.get_context("forkserver")


def warm_forkserver(guard: Guard) -> None:
    """Have numpy, the loops and every backend that can be imported ready in the process that children fork from."""
    importable = []
    for name in registry.names():
        try:
            registry.load(name)
        except BackendError:
            continue
        importable.append(f"imqueue.backends.{name}")
    _context.set_forkserver_preload(["numpy", "imqueue.load", *importable])
    ours, theirs = _context.Pipe(duplex=False)
    first = _context.Process(target=_tell_parent, args=(theirs,))
    first.start()
    theirs.close()
    guard.watch(ours.recv())
    first.join()
    ours.close()


def _tell_parent(pipe: Connection) -> None:
    """What the first child does: its parent is the forkserver, whose pid is told nowhere else."""
    pipe.send(os.getppid())


def _slay(process: ForkServerProcess) -> None:
    """Kill it with its helpers, which would go on without it."""
    assert process.pid is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it does not lead its group yet
        process.kill()


class CrewError(Exception):
    """A child failed, or did not come up. `kind`: backend or harness."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class Member:
    """A child's post as the driver follows it."""

    post: Post
    process: ForkServerProcess
    page: Page
    helpers: dict[int, str] = field(default_factory=dict)  # pid -> program, of what its handle runs: a Node child

    @property
    def state(self) -> int:
        return self.page[STATE]

    @property
    def gone(self) -> bool:
        """Its process has ended without a word."""
        return self.process.exitcode is not None and self.state not in (State.ENDED, State.FAILED)

    def error(self) -> CrewError | None:
        """What it reported, or its unasked death."""
        name = self.post.name
        if self.state == State.FAILED:
            told = json.loads((self.post.folder / f"{name}.error.json").read_text())
            return CrewError(told["kind"], f"{name}: {told['text']}")
        if self.gone:
            return CrewError("harness", f"{name} died unasked (exit code {self.process.exitcode})")
        return None


class Crew:
    """All children of a trial. `template` is the post that all posts are made from."""

    def __init__(self, template: Post, control: Control, source: Source, guard: Guard) -> None:
        self._template = template
        self._control = control
        self._source = source
        self._guard = guard
        self._seats = {"producer": 0, "worker": 0}
        self.members: list[Member] = []

    def post(self, role: str, rank: int = 0, from_segment: int = 0) -> Post:
        """A post in this trial; producers and workers are numbered as they come."""
        name = role
        if role in self._seats:
            name = f"{role}-{self._seats[role]}"
            self._seats[role] += 1
        return dataclasses.replace(self._template, role=role, name=name, rank=rank, from_segment=from_segment)

    def start(self, posts: Sequence[Post], timeout_s: float, *, together: bool = False) -> list[Member]:
        """A process for each post, or one for all of them (`together`); returns when all handles are open.

        Raises `CrewError` when one fails or is not ready in time.
        """
        started: list[Member] = []
        for group in [list(posts)] if together else [[post] for post in posts]:
            for post in group:
                self._enrol(post)
            process = _context.Process(target=load.run, args=(group,), daemon=True)
            process.start()
            assert process.pid is not None
            self._guard.watch(process.pid)
            started += [Member(post, process, self._page(post)) for post in group]
        self.members += started
        self._wait_open(started, timeout_s)
        with self._source.lock:
            for member in started:
                if not together:
                    member.helpers = programs_below(member.page[PID])
                for role in load.roles(member.post):
                    self._source.usage.add(role, *self.ids(member))
                    for pid in member.helpers:
                        self._source.usage.add(role, pid)
        return started

    def _enrol(self, post: Post) -> None:
        folder = post.folder / "ledger"
        for name in load.ledgers(post):
            ledger.create(folder, name)
        for role in load.roles(post):
            name = f"{role}-0" if post.role == "inline" else post.name
            with self._source.lock:
                self._source.tally.add(name)
            self._control.seat(role)

    def _page(self, post: Post) -> Page:
        return Page(post.folder / "ledger", load.ledgers(post)[0])

    def _wait_open(self, members: Sequence[Member], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.raise_errors()
            if all(member.state >= State.OPEN for member in members):
                return
            time.sleep(0.002)
        late = ", ".join(member.post.name for member in members if member.state < State.OPEN)
        raise CrewError("backend", f"not connected within {timeout_s:g} s: {late}")

    def wait_until_left(self, role: str, rank: int, timeout_s: float) -> None:
        """Wait until all of this rank and above have ended. Raises `BadInput` when they take longer."""
        deadline = time.monotonic() + timeout_s
        while any(member.state < State.ENDED for member in self.of(role) if member.post.rank >= rank):
            if time.monotonic() > deadline:
                raise BadInput(f"{role}s that were asked to leave are still at work after {timeout_s:g} s; try again")
            time.sleep(0.005)

    def of(self, role: str) -> list[Member]:
        return [member for member in list(self.members) if member.post.role == role]

    def raise_errors(self) -> None:
        """Raises the first `CrewError` of any member."""
        for member in list(self.members):
            if error := member.error():
                raise error

    def ids(self, member: Member) -> tuple[int, int]:
        """(pid, thread) to account CPU to; thread 0 where the process is its own."""
        alone = sum(other.process is member.process for other in self.members) == 1
        return member.page[PID], 0 if alone else member.page[THREAD]

    def window(self) -> Window:
        """What everybody has used up to now."""
        with self._source.lock:
            for member in self.members:
                for role in load.roles(member.post):
                    self._source.usage.told(role, *self.ids(member), member.page[CPU_NS] / 1e9)
            usage = self._source.usage.read()
        children: dict[str, float] = {}
        for member in self.members:
            for role in load.roles(member.post):
                used_s = self._source.usage.each(role)
                children[member.post.name] = used_s.get(self.ids(member), 0.0)
                for pid, program in member.helpers.items():
                    children[f"{member.post.name}'s {program}"] = used_s.get((pid, 0), 0.0)
        roles_s = {role: cpu_s for role, (cpu_s, _) in usage.items()}
        return Window(roles_s, {role: memory for role, (_, memory) in usage.items()}, children, cores_busy_s())

    def drop_queue(self, facts: Facts, server: Server | None, timeout_s: float) -> None:
        """Have the queue dropped where the keeper did not get to it. After `end`; an event tells why one stays behind.

        A `server` of ours that has died is started on its data, which still has the queue.
        """
        if not any(member.process.exitcode is not None and member.state != State.ENDED for member in self.of("keeper")):
            return
        self.members = []
        try:
            if server is not None:
                server.start()
            # In its first look at the driver's page it finds that the trial is over.
            self.start([dataclasses.replace(self._template, role="keeper", name="keeper2")], timeout_s)
            self.end(timeout_s)
            self.raise_errors()
        except (CrewError, ServerError, ServerMissing) as error:
            facts.event("left behind", f"the queue {self._template.queue} could not be dropped: {error}")

    def end(self, timeout_s: float) -> list[str]:
        """Wait for all children, kill those who don't end; returns the names of the killed."""
        deadline = time.monotonic() + timeout_s
        killed = []
        for process in {id(member.process): member.process for member in self.members}.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                killed += [member.post.name for member in self.members if member.process is process]
                _slay(process)
                process.join(END_MAX_S)
            assert process.pid is not None
            self._guard.forget(process.pid)
        return killed
