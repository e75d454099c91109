"""A small process that outlives its owner just long enough to end what the owner started.

The owner may be killed in a way that leaves it no time to clean up. The guard holds a pipe from it; when the
pipe ends, so does everything that was watched. `Guard` runs it as ``python -m imqueue.servers.guard``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

import psutil

OWNER_CHECK_S = 0.5
"""A child that the owner forked may hold the pipe open, so the guard also looks whether the owner lives."""

END_S = 5.0


class Guard:
    """The owner's side. `watch` a pid right after it was started: the guard remembers which process that was.

    When the owner ends, however it ends, or calls `close`, each watched process is killed with its
    descendants and, where it leads a session or a process group, the members of that. Safe to use from
    several threads.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the guard. Nothing happens when it is there already."""
        if self._process is None:
            command = [sys.executable, "-m", "imqueue.servers.guard", str(os.getpid())]
            # A session of its own: Ctrl-C in the owner's terminal must not reach it.
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)

    def watch(self, pid: int) -> None:
        """End this process with its owner. It must be running and not yet waited for."""
        self._tell(f"+ {pid}\n")

    def forget(self, pid: int) -> None:
        """It has ended, or may live on. A guard that has gone watches nobody."""
        with contextlib.suppress(RuntimeError, BrokenPipeError):
            self._tell(f"- {pid}\n")

    def close(self) -> None:
        """Kill what is still watched and wait for the guard's own end. Safe twice."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            try:
                process.wait(2 * END_S)
            finally:
                process.kill()
                process.wait()

    def _tell(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the guard is not running; call start() first")
        self._process.stdin.write(line.encode())  # one short write to a pipe is never torn


class Watched:
    """The guard's side: which processes to end. Known by pid and start time, so that a reused pid is safe."""

    def __init__(self) -> None:
        self._roots: dict[int, psutil.Process | None] = {}  # None: it had gone before we could look

    def obey(self, line: str) -> None:
        """``+ pid`` or ``- pid``."""
        sign, pid = line[0], int(line[1:])
        self._roots.pop(pid, None)
        if sign == "+":
            try:
                self._roots[pid] = psutil.Process(pid)
            except psutil.NoSuchProcess:
                self._roots[pid] = None

    def end_all(self, timeout_s: float) -> None:
        """SIGKILL until nothing is left; what is born while we kill is found in the next round."""
        deadline = time.monotonic() + timeout_s
        known: set[psutil.Process] = set()
        while time.monotonic() < deadline:
            known |= self._family()
            left = [each for each in known if alive(each)]
            if not left:
                return
            for each in left:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            time.sleep(0.02)

    def _family(self) -> set[psutil.Process]:
        found: set[psutil.Process] = set()
        for root in self._roots.values():
            with contextlib.suppress(psutil.Error):
                if root is not None and root.is_running():
                    found |= {root, *root.children(recursive=True)}
        return found | {each for each in psutil.process_iter() if self._is_member(each)}

    def _is_member(self, process: psutil.Process) -> bool:
        """In the session or group of a watched process, which may have gone. A reused pid is not that."""
        with contextlib.suppress(psutil.Error, OSError):
            for leader in {os.getsid(process.pid), os.getpgid(process.pid)} & self._roots.keys():
                root = self._roots[leader]
                if (root is not None and root.is_running()) or not psutil.pid_exists(leader):
                    return True
        return False


def alive(process: psutil.Process) -> bool:
    """It runs, and is the same process; one that only waits to be reaped does not count."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _owner_writes_until_it_ends(owner: int, watched: Watched) -> None:
    rest = b""
    while True:
        if not select.select([0], [], [], OWNER_CHECK_S)[0]:
            if os.getppid() != owner:
                return
            continue
        if not (piece := os.read(0, 65_536)):
            return
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            watched.obey(line.decode())


def main() -> None:
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    watched = Watched()
    _owner_writes_until_it_ends(int(sys.argv[1]), watched)
    watched.end_all(END_S)


if __name__ == "__main__":
    main()
