"""What all private servers share: starting, waiting until it answers, ending."""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import re
import signal
import stat
import subprocess
import threading
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import mirakuru.base
import psutil

from imqueue.backend import Durability
from imqueue.servers import Server, ServerError, ServerMissing
from imqueue.servers._machine import (
    PROGRAM_FOLDERS,
    common_ground,
    end_leftovers,
    free_port,
    log_end,
    secret,
    slay,
    tree,
)

if TYPE_CHECKING:
    from imqueue.servers.guard import Guard

# At exit mirakuru kills every process whose mark *contains* our pid's digits: pid 42 would end the servers of
# pid 1421, or of anybody with 42 in a random id. Our owner stops its servers; when it cannot, the guard does.
atexit.unregister(mirakuru.base.cleanup_subprocesses)

PORT_TRIES = 5


class Child(mirakuru.SimpleExecutor):
    """One process in a session of its own. It works where `log` lies, which takes its output."""

    def __init__(self, command: list[str], *, log: Path, env: dict[str, str], identity: dict[str, Any]) -> None:
        self.log = log
        self._env = {"PATH": os.pathsep.join([str(Path(command[0]).parent), *PROGRAM_FOLDERS])}
        self._env |= {"HOME": str(log.parent), "LC_ALL": "C"} | env
        super().__init__(
            command,
            cwd=str(log.parent),
            sleep=0.02,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            popen_kwargs=identity | {"start_new_session": True},
        )

    @property
    def envvars(self) -> dict[str, str]:
        # Not the reader's environment: a RABBITMQ_CONFIG_FILE in it would change what is measured.
        return self._env | {mirakuru.base.ENV_UUID: self._uuid}

    @property
    def _popen_kwargs(self) -> dict[str, Any]:
        kwargs = super()._popen_kwargs
        del kwargs["preexec_fn"]  # may deadlock in a process with threads; start_new_session does the same
        return kwargs

    @property
    def pid(self) -> int | None:
        process = self.process
        return None if process is None else process.pid

    def __del__(self) -> None:
        # mirakuru's would end the server of the parent when a forked child drops its copy.
        pass

    def launch(self, spawned: Callable[[int], None], obstacle: Callable[[], str | None], timeout_s: float) -> None:
        """Start; call `spawned` with the pid; return when there is no `obstacle`.

        `ServerError`: it exited, or `timeout_s` is over.
        """
        self._timeout = timeout_s
        with open(self.log, "wb") as log:
            self._stdout = log
            super().start()
        assert self.process is not None
        spawned(self.process.pid)
        try:
            self.wait_for(lambda: self._is_free_of(obstacle))
        except mirakuru.TimeoutExpired as error:
            raise ServerError(f"it did not answer within {timeout_s:g} s ({self._obstacle})") from error

    def _is_free_of(self, obstacle: Callable[[], str | None]) -> bool:
        if self.process is not None and (code := self.process.poll()) is not None:
            raise ServerError(f"it ended with exit code {code}")
        self._obstacle = obstacle()
        return self._obstacle is None

    def finish(self, how: int, timeout_s: float) -> None:
        """Send the signal, wait, then SIGKILL; whatever it started ends too."""
        if self.process is None:
            return
        family = tree(self.process.pid) if self.running() else []
        self._timeout = timeout_s
        # An exit code is no news about a server that is to end.
        with contextlib.suppress(mirakuru.exceptions.ProcessFinishedWithError):
            self.stop(stop_signal=how)
        slay(family)

    def slay(self) -> None:
        """SIGKILL it and all its descendants, the root first so that it cannot answer for them."""
        if self.process is not None and self.running():
            slay(tree(self.process.pid))
        self.kill()


class Private(Server):
    """A server of our own, from the binary on this machine. `folder` is its own; making it starts nothing.

    Set `guard` before `start`, and the server cannot outlive its owner. `url` and `note` are known once it
    has started.
    """

    guard: Guard | None = None
    version_min: ClassVar[str] = "0"
    """The oldest that its backends can use, dotted numbers."""
    stop_signal: ClassVar[int] = signal.SIGTERM
    user: str | None = None  # whom it runs as, where that is not us

    def __init__(self, folder: Path, durability: Durability | None = None) -> None:
        self.folder = folder.resolve()
        self.durability = durability or Durability.DELAYED
        self.choose_ports()
        self._settled = False  # once it has run, its port is in people's hands and stays
        self._children: list[Child] = []  # the main one last
        self._lock = threading.RLock()

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Why it cannot be started here, with what would bring it; None: it can."""

    @classmethod
    @abstractmethod
    def ask(cls, url: str, timeout_s: float) -> str:
        """The version of the server at `url`, told by itself. `ServerError`: it does not answer."""

    @classmethod
    def too_old(cls, version: str) -> str | None:
        """Why a server of this version is of no use, with the version needed; None: it is new enough."""
        if _numbers(version) >= _numbers(cls.version_min):
            return None
        return f"{cls.kind} {version} is too old; {cls.version_min} or newer is needed"

    @abstractmethod
    def prepare(self) -> list[str]:
        """Make what it needs in `folder`, which is there; return its command line."""

    def env(self) -> dict[str, str]:
        """What it needs in its environment besides PATH, HOME and LC_ALL."""
        return {}

    def choose_ports(self) -> None:
        """Take a free port, or more where it needs more."""
        self.port = free_port()

    def launch(self, timeout_s: float) -> None:
        """Start its processes, the main one last, and return when they are ready."""
        self.spawn("log", self.prepare(), self._obstacle, timeout_s)

    def identity(self) -> dict[str, Any]:
        """The arguments of Popen that make a child run as `user`."""
        if self.user is None:
            return {}
        return {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}

    @property
    def password(self) -> str:
        """Kept in its folder, made on first use; only its owner can read it."""
        return secret(self.folder / "password")

    def version(self) -> str:
        return self.ask(self.url, 5.0)

    def running(self) -> bool:
        children = self._children
        return bool(children) and children[-1].running()

    def pids(self) -> list[int]:
        return [pid for child in self._children if child.running() and (pid := child.pid) is not None]

    def start(self, timeout_s: float = 30.0) -> None:
        with self._lock:
            if self.running():
                return
            if reason := self.missing():
                raise ServerMissing(reason)
            self.kill()  # what is left of one that died by itself
            try:
                self._make_folder()
                end_leftovers(self._pid_file)
            except OSError as error:
                raise ServerError(f"{self.kind} cannot keep its data in {self.folder}: {error}") from error
            for left in reversed(range(PORT_TRIES)):
                try:
                    self._try_start(timeout_s)
                    self._settled = True
                    self._look_at_version()
                    return
                except ServerError as error:
                    if self._settled or not left or not re.search("in use|eaddrinuse", str(error)):
                        raise
                    self.choose_ports()

    def stop(self, timeout_s: float = 10.0) -> None:
        self._end(lambda child: child.finish(self.stop_signal, timeout_s))

    def kill(self) -> None:
        self._end(Child.slay)

    def spawn(self, log: str, command: list[str], obstacle: Callable[[], str | None], timeout_s: float) -> None:
        """Start one process, guarded from its first moment, and wait until `obstacle` names none."""
        child = Child(command, log=self.folder / log, env=self.env(), identity=self.identity())
        self._children.append(child)
        try:
            child.launch(self._spawned, obstacle, timeout_s)
        except ServerError as error:
            raise ServerError(f"{self.kind} did not start: {error}; {log_end(child.log)}") from error

    def _try_start(self, timeout_s: float) -> None:
        try:
            self.launch(timeout_s)
        except BaseException as error:
            self.kill()
            if isinstance(error, OSError):
                raise ServerError(f"{self.kind} did not start: {error}") from error
            raise

    def _look_at_version(self) -> None:
        if reason := self.too_old(self.version()):
            self.kill()
            raise ServerMissing(reason)

    def _spawned(self, pid: int) -> None:
        if self.guard is not None:
            self.guard.watch(pid)
        with open(self._pid_file, "a") as file:
            file.write(f"{pid} {psutil.Process(pid).create_time()}\n")

    def _obstacle(self) -> str | None:
        try:
            self.ask(self.url, 2.0)
        except ServerError as error:
            return str(error)
        return None

    def _end(self, how: Callable[[Child], None]) -> None:
        with self._lock:
            if not self._children:
                return
            while self._children:
                child = self._children[-1]
                pid = child.pid
                how(child)
                if self.guard is not None and pid is not None:
                    self.guard.forget(pid)
                self._children.remove(child)
            self._pid_file.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.user and not all(path.stat().st_mode & stat.S_IXOTH for path in self.folder.parents):
            shared = common_ground(self.folder)
            self.note = f"{self.kind} keeps its data in {shared}, because {self.user} cannot enter {self.folder}"
            self.folder = shared
        self.folder.chmod(0o711 if self.user else 0o700)

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pids"


def _numbers(version: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", version)[:3]]
