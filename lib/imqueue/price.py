"""What each class of durability costs: the same backend in every class that it has, beside its own least durable one.

Here figures cross the classes on purpose, which a ranking never does: each ratio is a backend's to itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

from imqueue.backend import Durability
from imqueue.grouping import FIGURES, Group, Row, Spread
from imqueue.histogram import too_few
from imqueue.results import Result
from imqueue.words import Html, enumeration, grouped_table, milliseconds, promise, rounded, table

CLASSES = [str(each) for each in Durability]
"""From the least durable to the most."""


@dataclass(frozen=True)
class Price:
    """One backend in one class: its measured trials, and the one in which strace watched.

    `promises`: what it promises besides durability, so a group of no class.
    """

    backend: str
    durability: str
    promises: Group
    results: Sequence[Result] = ()
    watched: Result | None = None
    error: str | None = None  # why a trial could not be started

    @property
    def spoilt(self) -> str:
        """Why there is no figure although trials passed: the rest would flatter it."""
        told = Row(self.backend, self.promises, tuple(self.results)).spoilt(FIGURES["sum_hz"])
        return self.error or told

    @cached_property
    def rate_hz(self) -> Spread | None:
        """Messages per second, where no trial failed; those in which the harness did are left out."""
        return None if self.spoilt else Spread.of(each.rate_hz for each in self.results if each.passed)

    @cached_property
    def put_p50_s(self) -> float | None:
        """The median put, over all puts of the trials behind the rate; None where too few resolve it."""
        import numpy as np

        puts_s = [each.put_s for each in self.results if each.passed]
        all_s = np.concatenate(puts_s) if puts_s else np.empty(0)
        return None if too_few(len(all_s), 0.5) else float(np.median(all_s))

    @property
    def fsyncs(self) -> dict[str, Any] | None:
        """What the watched trial's record says of them; None where there was no such trial."""
        return self.watched.info.get("fsyncs") if self.watched is not None else None

    @property
    def fsyncs_per_thousand(self) -> float | None:
        return (self.fsyncs or {}).get("per_thousand")

    @property
    def unobserved(self) -> str | None:
        """Why there is no count of fsyncs; None: there is one."""
        if not self.fsyncs:
            return self.error or "no trial was watched"
        if self.watched is not None and not self.watched.passed:
            return self.watched.verdict()
        reason: str | None = self.fsyncs["reason"]
        return reason

    @property
    def guarantees(self) -> dict[str, Any]:
        """As read from the live server."""
        return next((each.info["guarantees"] for each in self.results if each.info.get("guarantees")), {})

    @property
    def failures(self) -> list[tuple[str, str]]:
        """What came of trials that did not pass, and why."""
        what = "no figure" if self.rate_hz is None else "invalid, left out"
        told = [self.error] if self.error else []
        return [(what, why) for why in told + [each.verdict() for each in self.results if not each.passed]]

    @property
    def stamps(self) -> str:
        return ", ".join(sorted({each["stamp"] for result in self.results for each in result.stamps}))


@dataclass(frozen=True)
class Prices:
    """All of them. `what`: the trials in words; `left_out`: backend -> why it has none."""

    prices: Sequence[Price]
    what: str
    left_out: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def groups(self) -> dict[Group, dict[str, list[Price]]]:
        """Backends by what they promise besides durability; each backend's classes, the least durable first."""
        found: dict[Group, dict[str, list[Price]]] = {}
        for each in sorted(
            self.prices, key=lambda price: (price.promises, price.backend, CLASSES.index(price.durability))
        ):
            found.setdefault(each.promises, {}).setdefault(each.backend, []).append(each)
        return found

    def base(self, price: Price) -> Price:
        """The same backend in its least durable class."""
        return self.groups[price.promises][price.backend][0]

    def ratio(self, price: Price) -> Spread | None:
        """Its rate over that of its base: of the medians, and how far the repeats let it lie. None for the base."""
        base = self.base(price)
        if base is price or not base.rate_hz or not price.rate_hz:
            return None
        rate, whole = price.rate_hz, base.rate_hz
        n = min(rate.n, whole.n)
        return Spread(rate.median / whole.median, rate.least / whole.greatest, rate.greatest / whole.least, n)

    @property
    def table(self) -> Html:
        """A row for each backend and class, under a heading for what is promised; then what is missing, and why."""
        numbers = ["messages/s", "of its own least durable", "p50 put, ms"]
        numbers += ["fsyncs per 1,000 messages", "counted at, messages/s"]
        columns = ["backend", "durability", *numbers, "outlives a kill", "outlives power loss", "stamps"]
        groups = {
            heading(promises): [self._cells(price) for prices in backends.values() for price in prices]
            for promises, backends in self.groups.items()
        }
        words = escape(f"{self.what}{self._brackets()}")
        return Html(f"<p>{words}</p>{grouped_table(columns, groups, numbers)}{self._missing()}")

    def _brackets(self) -> str:
        n = max((price.rate_hz.n for price in self.prices if price.rate_hz), default=1)
        if n == 1:
            return ""
        return (
            f" In brackets: (least to greatest of {n}); of a ratio, the least rate over the other class' greatest "
            "to the greatest over its least. It is no confidence interval."
        )

    def _cells(self, price: Price) -> list[str]:
        ratio, put_s = self.ratio(price), price.put_p50_s
        return [
            price.backend,
            price.durability,
            price.rate_hz.text() if price.rate_hz else "no figure",
            ratio.text() if ratio else "",
            milliseconds(put_s).removesuffix(" ms") if price.rate_hz else "no figure",
            rounded(price.fsyncs_per_thousand) if price.unobserved is None else "not observed",
            rounded(price.watched.rate_hz) if price.watched and price.unobserved is None else "",
            *(promise(price.guarantees.get(name)) for name in ("survives_kill", "survives_power_loss")),
            price.stamps,
        ]

    def _missing(self) -> str:
        rows = [(backend, "", "left out", reason) for backend, reason in self.left_out.items()]
        for each in self.prices:
            rows += [(each.backend, each.durability, *told) for told in each.failures]
            if each.unobserved and not each.error:
                rows.append((each.backend, each.durability, "fsyncs not observed", each.unobserved))
        return table(["backend", "durability", "what", "why"], rows) if rows else ""

    @property
    def conclusion(self) -> Html:
        """What keeping a message costs, from computed values."""
        sentences = [
            sentence
            for durability in CLASSES[1:]
            for base in CLASSES[: CLASSES.index(durability)]
            if (sentence := self._price_of(durability, base))
        ]
        sentences += [self._fsyncs_of(durability) for durability in CLASSES]
        told = " ".join(sentence for sentence in sentences if sentence)
        return Html(f"<p>{escape(told or 'No backend here has figures in two classes.')}</p>")

    def _price_of(self, durability: str, base: str) -> str:
        ratios = {
            price.backend: ratio.median
            for price in self.prices
            if price.durability == durability and self.base(price).durability == base and (ratio := self.ratio(price))
        }
        if not ratios:
            return ""
        least, most = min(ratios, key=lambda name: ratios[name]), max(ratios, key=lambda name: ratios[name])
        if least == most:
            return f"{least} ran {durability} at {rounded(ratios[least])} of its rate in class {base}."
        return (
            f"{durability.capitalize()} against {base}, {len(ratios)} backends kept {rounded(ratios[least])} ({least}) "
            f"to {rounded(ratios[most])} ({most}) of their rate."
        )

    def _fsyncs_of(self, durability: str) -> str:
        found = {
            price.backend: price.fsyncs_per_thousand
            for price in self.prices
            if price.durability == durability and price.fsyncs_per_thousand is not None
        }
        if not found:
            return ""
        without = [name for name, each in found.items() if not each]
        least, most = min(found.values()), max(found.values())
        span = rounded(least) if least == most else f"{rounded(least)} to {rounded(most)}"
        words = f"In class {durability} {span} fsyncs were seen for 1,000 messages"
        if durability != CLASSES[0] and without:
            words += f" (none of {enumeration(sorted(without))})"
        return f"{words}."


def heading(promises: Group) -> str:
    return str(promises).capitalize()
