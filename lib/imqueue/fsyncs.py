"""How often stable storage is waited for: strace on the processes that do it, in a trial that measures nothing else.

strace stops its processes at every system call, so such a trial is stamped *watched* and ranked nowhere.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from imqueue import load
from imqueue.crew import Crew
from imqueue.exporter import Source
from imqueue.facts import Facts
from imqueue.servers import Server
from imqueue.servers._machine import tree
from imqueue.servers.guard import Guard

ATTACH_MAX_S = 5.0
DETACH_MAX_S = 5.0

CALLS = ("fsync", "fdatasync", "msync")
"""Not sync_file_range: it starts writing, and promises nothing about the disk's own cache."""

# A call that another thread's interrupted stands on two lines; the second one begins with <...
_CALL = re.compile(rf"^\d+ +(?P<at_s>\d+\.\d+) (?P<name>{'|'.join(CALLS)})\(", re.MULTILINE)


class Strace:
    """strace on some processes, their threads and whatever they start. Attach, and detach in the same thread."""

    def __init__(self, folder: Path, guard: Guard) -> None:
        self._calls, self._said = folder / "fsyncs.strace", folder / "strace.log"
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None
        self.reason: str | None = None
        """Why nothing can be told; None: nothing is known against it."""

    def attach(self, pids: Sequence[int]) -> None:
        """Return when every thread of these is watched, or with a `reason`. Never raises for want of strace."""
        if (program := shutil.which("strace")) is None:
            self.reason = "there is no strace on the PATH; `apt-get install --no-install-recommends strace` brings it"
            return
        command = [program, "-f", "-ttt", "-e", f"trace={','.join(CALLS)}", "-o", str(self._calls)]
        with open(self._said, "wb") as said:
            try:
                self._process = subprocess.Popen(
                    [*command, *(word for pid in pids for word in ("-p", str(pid)))],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            except OSError as error:
                self.reason = f"strace cannot be started: {error}"
                return
        self._guard.watch(self._process.pid)
        self._wait_until_attached(self._process, pids)

    def _wait_until_attached(self, process: subprocess.Popen[bytes], pids: Sequence[int]) -> None:
        deadline = time.monotonic() + ATTACH_MAX_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self.reason = f"strace could not attach: {self._last_words()}"
                return
            if all(tracer == process.pid for pid in pids for tracer in tracers(pid)):
                return
            time.sleep(0.01)
        self.reason = f"strace had not attached within {ATTACH_MAX_S:g} s: {self._last_words()}"

    def detach(self) -> None:
        """Let them go on unwatched. Safe twice. They go on too should strace have to be killed."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() not in (None, 0) and self.reason is None:  # 0: all that it watched have ended
            self.reason = f"strace ended before the load did: {self._last_words()}"
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(DETACH_MAX_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(DETACH_MAX_S)
        self._guard.forget(process.pid)

    def calls(self, start_s: float, end_s: float) -> Counter[str]:
        """How often each was called from one Unix time to another. Detach first: strace writes at its leisure."""
        text = self._calls.read_text(errors="replace") if self._calls.exists() else ""
        found = (each for each in _CALL.finditer(text) if start_s <= float(each["at_s"]) <= end_s)
        return Counter(each["name"] for each in found)

    def _last_words(self) -> str:
        lines = self._said.read_text(errors="replace").strip().splitlines()
        return lines[-1].partition("strace: ")[2] or lines[-1] if lines else "it said nothing"


def tracers(pid: int) -> list[int]:
    """Who traces each thread of a process (0: nobody); [] when it is gone."""
    found = []
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            found += [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("TracerPid")]
    return found


@contextlib.contextmanager
def counting(
    facts: Facts, source: Source, crew: Crew, server: Server | None, guard: Guard, live: Path
) -> Iterator[None]:
    """Count the fsyncs of what is measured inside into `facts`, if its workload asks for that.

    From go to the last message settled, so that each has had its put, its get and its ack. A backend with a server
    is watched there, any other where its fsyncs are: in producers and workers.
    """
    if not facts.workload.count_fsyncs:
        yield
        return
    strace = Strace(live, guard)
    observed_on, pids = _whom(crew, server)
    if pids:
        strace.attach(pids)
    else:
        strace.reason = "the server is not ours, so its processes cannot be watched"
    try:
        yield
    finally:
        strace.detach()
        with source.lock:
            source.tally.update()
        facts.fsyncs = _found(strace, facts, source, observed_on)


def _whom(crew: Crew, server: Server | None) -> tuple[str, list[int]]:
    if server is None:
        pids = {crew.ids(member)[0] for member in crew.members if load.roles(member.post)}
        return "producers and workers", sorted(pids)
    family: list[psutil.Process] = [each for root in server.pids() for each in tree(root)]
    return f"the server ({server.kind})", [each.pid for each in family]


def _found(strace: Strace, facts: Facts, source: Source, observed_on: str) -> dict[str, Any]:
    tally = source.tally
    end_ns = max(facts.end_ns, tally.last_settled_ns)
    reason = strace.reason or (None if tally.popped else "no message was settled")
    found: dict[str, Any] = {"count": None, "per_thousand": None, "calls": {}, "messages": tally.popped}
    found |= {"window_s": facts.since_go_s(end_ns), "observed_on": observed_on, "reason": reason}
    if reason is None:
        calls = strace.calls(facts.go_wall_s, facts.go_wall_s + found["window_s"])
        found |= {"count": calls.total(), "calls": dict(calls), "per_thousand": 1e3 * calls.total() / tally.popped}
    return found
