"""CPU seconds and memory of the processes that a trial is made of, by role."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil

TREE_EVERY_S = 1.0  # finding a server's children means reading all of /proc


class Usage:
    """Sums by role; what a process used stays counted after it ended. One thread at a time."""

    def __init__(self) -> None:
        self._members: dict[str, list[tuple[int, int]]] = {}
        self._roots: dict[str, list[int]] = {}
        self._trees: dict[str, list[int]] = {}
        self._tree_at_s = 0.0
        self._frozen: dict[str, tuple[float, int]] | None = None
        self._used_s: dict[tuple[str, int, int], float] = {}
        self._processes: dict[int, psutil.Process] = {}

    def add(self, role: str, pid: int, thread: int = 0) -> None:
        """A process, or (`thread` given) one thread of it."""
        self._members.setdefault(role, []).append((pid, thread))

    def told(self, role: str, pid: int, thread: int, used_s: float) -> None:
        """What a process or thread said of itself at its end, as the system then forgets it; 0: nothing yet."""
        key = (role, pid, thread)
        self._used_s[key] = max(self._used_s.get(key, 0.0), used_s)

    def add_tree(self, role: str, roots: Sequence[int]) -> None:
        """Processes and all their descendants, looked up anew now and then."""
        self._roots[role] = list(roots)
        self._tree_at_s = 0.0

    def read(self) -> dict[str, tuple[float, int]]:
        """Role -> (CPU seconds so far, resident bytes now)."""
        if self._frozen is not None:
            return self._frozen
        self._find_trees()
        members = {role: list(pairs) for role, pairs in self._members.items()}
        for role, pids in self._trees.items():
            members.setdefault(role, []).extend((pid, 0) for pid in pids)
        memory = dict.fromkeys(members, 0)
        for role, pairs in members.items():
            for pid, thread in pairs:
                memory[role] += self._read(role, pid, thread)
        cpu = dict.fromkeys(members, 0.0)
        for (role, _, _), used_s in self._used_s.items():
            cpu[role] = cpu.get(role, 0.0) + used_s
        return {role: (cpu[role], memory[role]) for role in members}

    def freeze(self) -> None:
        """From now on `read` repeats its last answer: the pids may soon be somebody else's."""
        self._frozen = self.read()

    def each(self, role: str) -> dict[tuple[int, int], float]:
        """(pid, thread) -> CPU seconds as of the last `read`."""
        return {(pid, thread): used for (of, pid, thread), used in self._used_s.items() if of == role}

    def _read(self, role: str, pid: int, thread: int) -> int:
        try:
            process = self._processes.setdefault(pid, psutil.Process(pid))
            with process.oneshot():
                if thread:
                    times = next((each for each in process.threads() if each.id == thread), None)
                    used_s = times.user_time + times.system_time if times else 0.0
                else:
                    used = process.cpu_times()
                    used_s = used.user + used.system
                memory_bytes = int(process.memory_info().rss)
        except psutil.Error:
            return 0
        self.told(role, pid, thread, used_s)
        return memory_bytes

    def _find_trees(self) -> None:
        if not self._roots or time.monotonic() - self._tree_at_s < TREE_EVERY_S:
            return
        self._tree_at_s = time.monotonic()
        for role, roots in self._roots.items():
            found = list(roots)
            for root in roots:
                try:
                    found += [child.pid for child in psutil.Process(root).children(recursive=True)]
                except psutil.Error:
                    continue
            self._trees[role] = found


def programs_below(pid: int) -> dict[int, str]:
    """pid -> name of every descendant of a process; {} when it is gone."""
    try:
        return {child.pid: child.name() for child in psutil.Process(pid).children(recursive=True)}
    except psutil.Error:
        return {}


def cores_busy_s() -> list[tuple[float, float]]:
    """(busy, total) seconds of each core since the machine started."""
    return [(sum(core) - core.idle - getattr(core, "iowait", 0.0), sum(core)) for core in psutil.cpu_times(percpu=True)]
