"""RabbitMQ, by an Erlang node beside it that asks the broker's own modules."""

from __future__ import annotations

import os
import select
import subprocess
import time

from imqueue.servers import Server
from imqueue.servers._machine import slay, tree
from imqueue.servers.guard import Guard
from imqueue.servers.rabbitmq import RabbitMQ, erlang
from imqueue.watch.reader import ASK_MAX_S, OPEN_MAX_S, Reader, Reading, WatchError, needs_private

FIGURES = (  # name, kind, whether it counts: in the order of the answer
    ("messages", "ready", False),
    ("messages", "unacked", False),
    ("io", "fsyncs", True),
    ("io", "writes", True),
    ("alarms", "", False),
    ("memory_bytes", "", False),
    ("run_queue", "", False),
)
# Answers each line that it reads with one line of figures, `none` for one that the broker does not have, and ends with
# its input.
ASK = """
N = 'imqueue@localhost',
Call = fun(M, F, A) -> rpc:call(N, M, F, A, 1500) end,
Of = fun(K, L) when is_list(L) -> proplists:get_value(K, L); (_, _) -> none end,
Sum = fun(K, Qs) -> lists:sum([V || Q <- Qs, V <- [Of(K, Q)], is_integer(V)]) end,
Length = fun(L) when is_list(L) -> length(L); (_) -> none end,
Told = fun(F) when is_integer(F) -> integer_to_list(F); (_) -> "none" end,
Loop = fun Again() ->
    case io:get_line("") of
        L when is_list(L) ->
            Qs = Call(rabbit_amqqueue, info_all, [<<"/">>, [messages_ready, messages_unacknowledged]]),
            case Qs of
                {badrpc, Why} -> io:format("error ~0p~n", [Why]);
                _ ->
                    Io = Call(file_handle_cache_stats, get, []),
                    Figures = [
                        Sum(messages_ready, Qs), Sum(messages_unacknowledged, Qs),
                        Of({io_sync, count}, Io), Of({io_write, count}, Io),
                        Length(Call(rabbit_alarm, get_alarms, [])),
                        Call(erlang, memory, [total]), Call(erlang, statistics, [run_queue])],
                    io:format("~s~n", [lists:join(" ", [Told(F) || F <- Figures])])
            end,
            Again();
        _ -> halt()
    end
end,
Loop().
"""


class Node(Reader):
    """Half a second to start, then some calls a scrape, which the broker's queues answer before their other work.

    The plugin rabbitmq_prometheus is not used: it needs the management agent, which has every channel and queue write
    statistics, for every trial of that broker. `rabbitmqctl` starts a node as this one, but anew for each question.
    """

    def __init__(self, server: Server, guard: Guard) -> None:
        needs_private(server)
        assert isinstance(server, RabbitMQ)
        erl = erlang("erl")
        if erl is None:
            raise WatchError("erl is not on this machine")
        name = f"imqueue_watch_{os.getpid()}@localhost"
        command = [erl, "-noshell", "-hidden", "-start_epmd", "false", "-dist_listen", "false", "-sname", name]
        self._guard = guard
        self._node = subprocess.Popen(
            [*command, "+S", "1", "-eval", ASK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=server.folder,
            env=server.env() | {"HOME": str(server.folder), "LC_ALL": "C"},  # where the broker's cookie lies
            start_new_session=True,
        )
        guard.watch(self._node.pid)
        try:
            self._ask(OPEN_MAX_S)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        return self._node.pid

    def read(self) -> list[Reading]:
        return readings(self._ask(ASK_MAX_S))

    def close(self) -> None:
        slay(tree(self._node.pid))
        self._node.wait()
        self._guard.forget(self._node.pid)
        for pipe in (self._node.stdin, self._node.stdout):
            if pipe is not None:
                pipe.close()

    def _ask(self, timeout_s: float) -> str:
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        self._node.stdin.write(b"\n")
        self._node.stdin.flush()
        deadline = time.monotonic() + timeout_s
        told = b""
        while not told.endswith(b"\n"):
            if not select.select([self._node.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise WatchError(f"the node beside the broker did not answer within {timeout_s:g} s")
            if not (part := os.read(self._node.stdout.fileno(), 4096)):
                raise WatchError("the node beside the broker ended")
            told += part
        if told.startswith(b"error"):
            raise WatchError(f"the broker did not answer: {told.decode(errors='replace').strip()}")
        return told.decode()


def readings(told: str) -> list[Reading]:
    """From one line of the node's; what the broker did not tell is absent, not zero."""
    figures = zip(FIGURES, told.split(), strict=True)
    return [Reading(name, float(value), kind, counts) for (name, kind, counts), value in figures if value != "none"]
