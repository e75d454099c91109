"""A finished trial as its folder tells it: no server, no driver, nothing but files."""

from __future__ import annotations

import json
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imqueue import costs
from imqueue.words import SETTLES, UNRESOLVED, Html, pairs, promise, rounded, table, within
from imqueue.workload import BadInput, Workload

if TYPE_CHECKING:  # pandas costs a third of a second, which `import imqueue` must not take
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

VERDICTS = {
    "attempted": "put was called",
    "acknowledged": "the backend said yes",
    "rejected": "the backend said no",
    "uncertain": "put failed without an answer",
    "received": "arrived at a worker",
    "settled": "deliveries that were handled and acked",
    "lost": "acknowledged, never received",
    "duplicated": "deliveries beyond the first",
    "unexpected": "received, though never sent",
    "corrupted": "arrived with a wrong check value",
    "recovered": "uncertain, yet received",
    "reordered": "after a later one of its producer, at one worker",
    "undelivered": "still queued when the drain ran out of time",
}
PERCENTILES = {"p50": "p50_s", "p90": "p90_s", "p99": "p99_s", "p99.9": "p999_s", "max": "max_s"}


class Result:
    """One finished trial. Every attribute is read from `folder` when it is first asked for."""

    def __init__(self, folder: str | Path) -> None:
        """Raises `BadInput` where `folder` holds no finished trial."""
        self.folder = Path(folder)
        try:
            text = (self.folder / "trial.json").read_text()
        except OSError as error:
            raise BadInput(f"no finished trial in {self.folder}: {error.strerror}") from error
        try:
            self.info: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise BadInput(f"{self.folder / 'trial.json'} cannot be read: {error}") from None

    @property
    def id(self) -> str:
        return str(self.info["id"])

    @property
    def backend(self) -> str:
        return str(self.info["backend"])

    @property
    def shape(self) -> str:
        """ "sum" or "flow"."""
        return str(self.info["shape"])

    @cached_property
    def workload(self) -> Workload:
        return Workload.of(self.info["workload"])

    @property
    def rate_hz(self) -> float | None:
        """Messages settled per second while it was measured; None where the trial failed before that."""
        rate_hz = self.info.get("rate_hz")
        return None if rate_hz is None else float(rate_hz)

    @property
    def stamps(self) -> list[dict[str, str]]:
        """What limits the use of these figures: `stamp` and `reason`."""
        return list(self.info.get("stamps") or [])

    @property
    def passed(self) -> bool:
        """Whether it ran to its end, lost nothing, and the harness itself held."""
        audit = self.info.get("audit")
        invalid = any(each["stamp"] == "invalid" for each in self.stamps)
        return self.info["state"] == "done" and bool(audit and audit["passed"]) and not invalid

    @property
    def watched(self) -> bool:
        """Whether somebody looked on who costs it speed: `why=True`, `count_fsyncs=True`. It is never ranked."""
        workload = self.info["workload"]
        return bool(workload.get("why") or workload.get("count_fsyncs"))  # also of a trial by another imqueue

    @property
    def kept_up(self) -> bool:
        """Whether it passed and no backlog grew, so that its latency stands for the rate offered."""
        return self.passed and not any(each["stamp"] == "overload" for each in self.stamps)

    @cached_property
    def put_s(self) -> NDArray[np.float64]:
        """How long each acknowledged put took, in seconds; from the ledgers."""
        import numpy as np

        from imqueue import store
        from imqueue.ledger import Outcome

        puts = [store.read_ledger(path) for path in sorted((self.folder / "ledger").glob("producer-*.batches.parquet"))]
        done = [each[each["outcome"] == Outcome.DONE] for each in puts]
        return np.concatenate([(each["end_ns"] - each["start_ns"]) / 1e9 for each in done] or [np.empty(0)])

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """What happened, in order: `at_s` after go, `kind`, `text`."""
        path = self.folder / "events.json"
        return list(json.loads(path.read_text())) if path.is_file() else []

    @cached_property
    def series(self) -> pd.DataFrame:
        """Prometheus' raw samples: metric, time_s after go, value, and the labels le, kind and role.

        With `why=True` also what the server and the machine said of themselves: ``queue_server_*``, ``queue_host_*``.
        """
        return self._table("series.parquet", ["metric", "time_s", "value", "le", "kind", "role"])

    @cached_property
    def histogram(self) -> pd.DataFrame:
        """Counts of all latencies in buckets under 0.8 % wide: kind (due, sent), lower_s, upper_s, count."""
        return self._table("latency.parquet", ["kind", "lower_s", "upper_s", "count"])

    def _table(self, name: str, columns: list[str]) -> pd.DataFrame:
        import pandas as pd

        path = self.folder / name
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=columns)

    @property
    def audit(self) -> pd.DataFrame:
        """The verdict on every message: how many (<NA>: no order is promised), and what the word means."""
        import pandas as pd

        counts = self.info.get("audit") or {}
        messages = pd.array([counts.get(verdict) for verdict in VERDICTS], dtype="Int64")
        return pd.DataFrame({"messages": messages, "what it means": list(VERDICTS.values())}, index=list(VERDICTS))

    @property
    def latency(self) -> pd.DataFrame:
        """Exact percentiles in milliseconds, from due and from sent; "unresolved" where one cannot be told, and why."""
        import pandas as pd

        kinds = self.info.get("latency") or {}
        columns = {
            f"from {kind}, ms": [_milliseconds(figures.get(key)) for key in PERCENTILES.values()]
            for kind, figures in kinds.items()
        }
        if any(figures.get("unresolved") for figures in kinds.values()):
            columns["why unresolved"] = [self._why(key) for key in PERCENTILES.values()]
        return pd.DataFrame(columns, index=list(PERCENTILES), dtype=object)

    def _why(self, percentile: str) -> str:
        """Why a percentile is unresolved, in the words of each latency that has it so."""
        kinds = self.info.get("latency") or {}
        reasons = {kind: (figures.get("unresolved") or {}).get(percentile) for kind, figures in kinds.items()}
        found = {kind: reason for kind, reason in reasons.items() if reason}
        if len(found) == len(kinds) and len(set(found.values())) == 1:
            return str(next(iter(found.values())))
        return "; ".join(f"from {kind}: {reason}" for kind, reason in found.items())

    @property
    def conditions(self) -> Html:
        """What was promised, and measured on what, as read while the trial ran: a table."""
        return Html(table(["condition", "value"], _conditions(self.info)))

    @property
    def costs(self) -> Html:
        """CPU time by role, in all and per million messages, the observer's own included: a table."""
        return costs.of_trial(self)

    def verdict(self) -> str:
        """What came out, made from computed values: figures, messages, stamps."""
        sentences = [self._outcome()]
        if self.info.get("audit"):
            sentences.append(self._account())
        sentences += [f"{each['stamp'].capitalize()}: {each['reason'].rstrip('.')}." for each in self.stamps]
        return " ".join(sentences)

    def _outcome(self) -> str:
        if self.info["state"] == "failed":
            return f"{self.backend} failed: {(self.info.get('error') or 'no reason is known').rstrip('.')}."
        if self.rate_hz is None:
            return f"{self.backend} was {self.info['state']} before anything was measured."
        rate = f"{rounded(self.rate_hz)} messages/s"
        if self.shape == "sum":
            popped, wanted = self.info["counts"]["popped"], self.workload.messages
            elapsed = f"{self.info['elapsed_s']:.3g} s"
            if popped < wanted:
                return f"{self.backend} took {popped:,} of {wanted:,} messages in {elapsed} ({rate})."
            return f"{self.backend} summed 1 to {wanted:,} in {elapsed} ({rate})."
        due, sent = ((self.info.get("latency") or {}).get(kind, {}) for kind in ("due", "sent"))
        offered = self.info["counts"]["due"] / self.info["load_s"]
        return (
            f"{self.backend} handled {rate} of {rounded(offered)} offered for {self.info['load_s']:.3g} s; from due, "
            f"{_within(due, 'half', 'p50_s')}, {_within(due, '99 %', 'p99_s')}; from sent, which leaves out the wait "
            f"to be put, {within('99 %', sent.get('p99_s'))}."
        )

    def _account(self) -> str:
        audit = self.info["audit"]
        names = ("lost", "duplicated", "unexpected", "corrupted", "recovered", "reordered", "undelivered")
        found = [f"{audit[name]:,} {name}" for name in names if audit.get(name)]
        total = f"the sum is {audit['sum_received']:,}"
        total += ", as it must be" if audit["sum_fits"] else f", not {audit['sum_expected']:,}"
        account = ", ".join(found) or "nothing lost, duplicated or corrupted"
        return f"Of {audit['acknowledged']:,} messages acknowledged: {account}; {total}."

    def _repr_html_(self) -> str:
        limits = "; ".join(each["stamp"] for each in self.stamps) or "none"
        outcome = "passed" if self.passed else "failed"
        rows = [(self.backend, self.info["durability"], self.info["declares"]["delivery"], outcome, limits, self.id)]
        columns = ["backend", "durability", "delivery", "audit", "stamps", "trial"]
        return f"<p>{escape(self.verdict())}</p>{table(columns, rows)}"


def _conditions(info: dict[str, Any]) -> list[tuple[str, object]]:
    declares, promised = info["declares"], info.get("guarantees") or {}
    machine, versions = info.get("machine") or {}, info.get("versions") or {}
    packages = ", ".join(f"{name} {version}" for name, version in (versions.get("packages") or {}).items())
    return [
        ("workload", pairs(info["workload"])),
        ("built on", declares["built_on"]),
        ("durability", info["durability"]),
        ("delivery", declares["delivery"]),
        ("settles", SETTLES[declares["settles"]]),
        ("an acknowledged message outlives a kill of the server", promise(promised.get("survives_kill"))),
        ("it outlives loss of power", promise(promised.get("survives_power_loss"))),
        ("read from", promised.get("source", "?")),
        ("settings found there", pairs(promised.get("settings"))),
        ("server", versions.get("server") or "none"),
        ("server's settings as we gave them", pairs(info.get("server_settings"))),
        ("Python", f"{versions.get('python', '?')}; {packages}".rstrip("; ")),
        ("Prometheus", versions.get("prometheus") or "?"),
        ("imqueue's code", _code(info.get("code") or {})),
        ("machine", f"{machine.get('cpu', '?')}, {machine.get('cores', '?')} cores, {machine.get('system', '?')}"),
        ("governor of its CPU", machine.get("governor") or "not told by the system"),
        ("cores", pairs({role: ",".join(map(str, cores)) for role, cores in (info.get("cores") or {}).items()})),
        ("fsyncs", _fsyncs(info.get("fsyncs"))),
    ]


def _code(code: dict[str, Any]) -> str:
    if not code:
        return "not recorded"
    if code["commit"] is None:
        return f"no commit is known, source {code['source']}"
    return f"commit {code['commit'][:12]}{', edited' if code['edited'] else ''}, source {code['source']}"


def _fsyncs(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not counted"
    if found["reason"]:
        return f"not observed: {found['reason']}"
    return f"{found['count']:,}, {rounded(found['per_thousand'])} per 1,000 messages, in {found['observed_on']}"


def _milliseconds(value_s: float | None) -> float | str:
    return UNRESOLVED if value_s is None else round(value_s * 1e3, 3)


def _within(figures: dict[str, Any], share: str, percentile: str) -> str:
    return within(share, figures.get(percentile), (figures.get("unresolved") or {}).get(percentile, ""))
