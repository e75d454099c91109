"""beanstalkd, one tube for each queue: pipelined puts, reserves and deletes on greenstalk's socket.

Tried, messages/s at batch 1 / 100 / 1000 (one producer, one worker, 32 bytes, beanstalkd 1.12, two busy cores):
class delayed: pipelined, and the rest of a batch asked for by a count of what is ready (this) 7.1k / 21.5k / 17.8k; the
rest in windows that double 5.7k / 18.3k / 19.6k; greenstalk one by one 7.8k / 6.8k / 6.6k. This in class memory: 9.8k /
31k / 29k; in class flushed 0.6k to 3k, bound by an fsync for each put and each delete.

What an answer means was read from the server's system calls (1.12, strace): a put or a delete is written to the binlog
before it is answered, and with -f 0 it is also fsynced. Any other -f only lets a later write fsync what came before it:
the last ones before a pause wait for the kernel, so the kernel's bound is what `delayed` promises.

Two faults of 1.12 are avoided. A job of max-job-size, or a byte less, ends the reading of its log at the next start,
and all jobs behind it are gone: ours stay two bytes below. And a job's time to run (TTR) is no lease to rely on: of 120
jobs that idle connections held beyond it 78 never came back. The server looks ever more often as the end draws near,
and forgets a connection at which it looks in the very microsecond (under strace, which slows it down, all came back).
So the TTR is years: a message comes back when its holder's connection ends, and at no other time.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from typing import Any

from imqueue.backend import Backend, BackendError, Declares, Durability, Guarantees, Message, Rejected, Survives
from imqueue.backends._beanstalkd import Link, durability_of, fsync_of
from imqueue.backends._kernel import writeback

SIZE_MAX_BYTES = 1 << 20  # a server's own limit is 65,535 unless -z says more; the smaller one holds
END_BYTES = 2  # of a body on the wire; the server's log counts them too
TTR_S = 10 * 365 * 86_400
BLOCK_MAX_S = 5.0  # well below the link's REPLY_MAX_S, so that an empty queue is never taken for a dead server
EARLY_S = 0.01  # so little before its end a wait is over: the server's shortest is a second
NAP_S = 0.02  # a `get` that holds a stranger's job whose TTR ends soon is not made to wait; it looks this often
DESTROY_MAX_S = 30.0

PIPELINE = 1000  # commands in one write; the answers to so few fit into the socket's buffers
URGENT = 0  # the one priority used, so that jobs leave in the order of their numbers
REFUSALS = {b"DRAINING", b"OUT_OF_MEMORY", b"JOB_TOO_BIG"}  # after these the server keeps nothing of the put
TUBE = re.compile(r"[A-Za-z0-9+/;.$_()][-A-Za-z0-9+/;.$_()]{0,199}")
READY = re.compile(rb"current-jobs-ready: (\d+)")


class Beanstalkd(Backend):
    """A handle is one connection. The protocol waits in whole seconds, so an empty `get` returns up to a second late.

    `destroy` deletes what is ready, delayed or buried; what others hold goes when they settle it.
    """

    declares = Declares(
        built_on="a beanstalkd tube; greenstalk, with pipelined commands on its socket",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=True,
        wakes_by="reserve-with-timeout: the server answers when a message comes",
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="beanstalkd",
    )

    _link: Link | None = None

    def open(self) -> None:
        self.close()
        if not TUBE.fullmatch(self.queue):
            raise BackendError(
                f"{self.queue!r} cannot be a tube's name; allowed: up to 200 letters, digits and +/;.$_()-, "
                "the hyphen not first"
            )
        self._link = Link(self.url, self.queue)
        try:
            told = self._link.ask("stats")
            offered = durability_of(told, fsync_of(told, self.url))
            if offered is not self.durability:
                raise BackendError(self._refusal(told, offered))
        except BaseException:
            self.close()
            raise
        self._size_max_bytes = min(SIZE_MAX_BYTES, told["max-job-size"] - END_BYTES)
        self._held: set[bytes] = set()  # of this connection: a server that forgets gives the same numbers again
        self._ready_asked = b"" if self.batch == 1 else b"stats-tube %b\r\n" % self.queue.encode()

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    @property
    def guarantees(self) -> Guarantees:
        told = self._open_link().ask("stats")
        fsync, kernel = fsync_of(told, self.url), writeback(self.url)
        survives_power_loss: dict[Durability, Survives] = {
            Durability.MEMORY: False,
            Durability.DELAYED: kernel.survives,
            Durability.FLUSHED: True,
        }
        names = "version", "binlog-current-index", "max-job-size", "draining"
        return Guarantees(
            survives_kill=told["binlog-current-index"] > 0,
            survives_power_loss=survives_power_loss[durability_of(told, fsync)],
            fifo=True,
            puts_confirmed=True,
            redelivers_after_s=0.0,
            lease_s=None,
            source=f"stats, and the command line of its pid (beanstalkd {told['version']}); {kernel.source}",
            settings={name: str(told[name]) for name in names} | {"fsync": fsync or "not told"},
        )

    def put(self, bodies: Sequence[bytes]) -> None:
        link = self._open_link()
        largest = max(map(len, bodies), default=0)
        if largest > self._size_max_bytes:
            raise Rejected(f"a message of {largest} bytes was not sent; allowed: up to {self._size_max_bytes}")
        refused = []
        for start in range(0, len(bodies), PIPELINE):
            part = bodies[start : start + PIPELINE]
            with link.exchange():
                link.send(b"".join([b"put %d 0 %d %d\r\n%b\r\n" % (URGENT, TTR_S, len(each), each) for each in part]))
                answers = [link.line() for _ in part]
            refused += [answer for answer in answers if not answer.startswith(b"INSERTED ")]
        if refused:
            nothing = len(refused) == len(bodies) and set(refused) <= REFUSALS
            kind = Rejected if nothing else BackendError
            raise kind(f"of {len(bodies)} messages beanstalkd refused {len(refused)}: {refused[0].decode()}")

    def get(self, timeout_s: float) -> list[Message]:
        link = self._open_link()
        deadline = time.monotonic() + timeout_s
        left_s = timeout_s
        while not (messages := self._take(link, left_s)):
            left_s = deadline - time.monotonic()
            if left_s < EARLY_S:
                break
        self._held.update([message.receipt for message in messages])
        return messages

    def ack(self, messages: Sequence[Message]) -> None:
        link = self._open_link()
        numbers = [message.receipt for message in messages]
        if strange := set(numbers) - self._held:
            raise BackendError(f"{len(strange)} of {len(numbers)} messages are not held by this handle")
        _delete(link, numbers)
        self._held.difference_update(numbers)

    def depth(self) -> int:
        return int(self._open_link().ask("stats_tube", self.queue)["current-jobs-ready"])

    def destroy(self) -> None:
        link = self._open_link()
        deadline = time.monotonic() + DESTROY_MAX_S
        _delete(link, list(self._held))
        while (ready := self.depth()) or link.ask("kick", PIPELINE):
            with link.exchange():
                taken = self._reserve(link, min(ready, PIPELINE))
            _delete(link, [each.receipt for each in taken])
            if time.monotonic() > deadline:
                raise BackendError(f"tube {self.queue!r} was not empty after {DESTROY_MAX_S:g} s")

    def _open_link(self) -> Link:
        if self._link is None:
            raise Rejected("nothing was sent: the handle is not open")
        return self._link

    def _take(self, link: Link, wait_s: float) -> list[Message]:
        """Wait for a first message, then take what else is ready: two round trips, the second only where it pays."""
        wait_s = min(math.ceil(wait_s), BLOCK_MAX_S) if wait_s > 0 else 0
        with link.exchange():
            link.send(b"reserve-with-timeout %d\r\n%b" % (wait_s, self._ready_asked))
            answer = link.line()
            first = _reserved(link, answer)
            ready = self._ready(link) if self._ready_asked else 0
            more = self._reserve(link, min(ready, self.batch - 1)) if first else []
        if answer == b"DEADLINE_SOON" and wait_s:
            time.sleep(NAP_S)
        return first + more

    def _ready(self, link: Link) -> int:
        told = READY.search(link.block(int(link.line().removeprefix(b"OK "))))
        if told is None:
            raise BackendError("beanstalkd does not tell how many jobs are ready")
        return int(told[1])

    def _reserve(self, link: Link, count: int) -> list[Message]:
        """Up to `count` messages that are ready now."""
        link.send(b"reserve-with-timeout 0\r\n" * count)
        return [message for _ in range(count) for message in _reserved(link, link.line())]

    def _refusal(self, told: dict[str, Any], offered: Durability) -> str:
        asked = f"durability {self.durability!s} was asked for"
        if self.durability is Durability.FLUSHED and told["binlog-current-index"] and fsync_of(told, self.url) is None:
            return f"{asked}; beanstalkd tells -f 0 only by its command line, which cannot be read from here"
        options = {"memory": "no -b", "delayed": "-b with -f of more than 0, or -F", "flushed": "-b and -f 0"}
        return f"{asked} ({options[self.durability]}); this beanstalkd has {offered!s} ({options[offered]})"


def _reserved(link: Link, answer: bytes) -> list[Message]:
    """The message that a reserve brought; [] where there was none."""
    word, _, rest = answer.partition(b" ")
    if word == b"RESERVED":
        number, size = rest.split()
        return [Message(link.block(int(size)), number)]
    if word not in (b"TIMED_OUT", b"DEADLINE_SOON"):
        raise BackendError(f"reserve was answered {answer[:80]!r}")
    return []


def _delete(link: Link, numbers: Sequence[bytes]) -> None:
    """Of those held and those ready. One whose lease ended may be another's now: that one is left to its holder."""
    for start in range(0, len(numbers), PIPELINE):
        part = numbers[start : start + PIPELINE]
        with link.exchange():
            link.send(b"".join([b"delete %b\r\n" % number for number in part]))
            answers = {link.line() for _ in part}
            if wrong := answers - {b"DELETED", b"NOT_FOUND"}:
                raise BackendError(f"delete was answered {wrong.pop()[:80]!r}")
