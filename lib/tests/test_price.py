"""The price of a class is a backend's own: its ratio, its fsyncs, and the words for what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from made import make_trial

from imqueue import charts, pricing
from imqueue.grouping import Group
from imqueue.price import Price, Prices
from imqueue.results import Result
from imqueue.workload import BadInput

ONCE = Group("at most once", "", "none")


def price(folder: Path, backend: str, durability: str, rates_hz: list[float], **fsyncs: Any) -> Price:
    seen = {"count": 0, "per_thousand": 0.0, "reason": None, **fsyncs}
    results = [Result(make_trial(folder, backend, "sum", rate_hz=each)) for each in rates_hz]
    watched = Result(make_trial(folder, backend, "sum", rate_hz=1.0, fsyncs=seen))
    return Price(backend, durability, ONCE, results, watched)


@pytest.fixture
def prices(tmp_path: Path) -> Prices:
    return Prices(
        [
            price(tmp_path, "redis_list", "flushed", [90.0, 100.0, 110.0], per_thousand=1_732.0),
            price(tmp_path, "redis_list", "memory", [1_000.0, 900.0, 1_100.0]),
            price(tmp_path, "memory", "memory", [5_000.0] * 3, per_thousand=None, reason="strace is <away>"),
        ],
        "what was run",
        {"kue": "no Node"},
    )


def test_a_ratio_is_a_backends_to_its_own_least_durable_class(prices: Prices) -> None:
    flushed, memory, alone = prices.prices
    ratio = prices.ratio(flushed)
    assert ratio is not None
    assert ratio == pytest.approx((100 / 1_000, 90 / 1_100, 110 / 900, 3))
    assert prices.ratio(memory) is prices.ratio(alone) is None


def test_the_table_tells_price_fsyncs_and_what_is_missing_and_why(prices: Prices) -> None:
    assert "In brackets: (least to greatest of 3)" in prices.table
    assert "At most once, removes on get" in prices.table
    for words in ("0.1 (0.0818 to 0.122)", "1,730", "not observed", "strace is &lt;away&gt;", "no Node"):
        assert words in prices.table


def test_the_conclusion_reads_the_figures(prices: Prices) -> None:
    assert "redis_list ran flushed at 0.1 of its rate in class memory." in prices.conclusion
    assert "In class flushed 1,730 fsyncs were seen for 1,000 messages." in prices.conclusion


def test_the_chart_says_in_words_what_it_draws(prices: Prices) -> None:
    chart = charts.durability(prices)
    assert "Flushed ran at 0.1 of each backend's own least durable rate" in chart.alt
    assert "redis_list: memory 1,000 (900 to 1,100), flushed 100 (90 to 110) messages/s" in chart.alt
    assert chart.png()


def test_a_class_whose_trials_failed_has_no_figure_but_a_reason(tmp_path: Path) -> None:
    failed = Result(make_trial(tmp_path, shape="sum", state="failed", error="it broke"))
    prices = Prices([Price("redis_list", "memory", ONCE, [failed])], "what")
    assert "it broke" in prices.table
    assert "no figure" in charts.durability(prices).alt
    assert "No backend here" in prices.conclusion


def test_a_failed_repeat_refuses_the_figure_and_an_invalid_one_is_left_out(tmp_path: Path) -> None:
    def repeat(backend: str, **changes: Any) -> Result:
        return Result(make_trial(tmp_path, backend, shape="sum", rate_hz=5.0, **changes))

    def told(prices: Prices) -> dict[str, list[str]]:
        rows = BeautifulSoup(prices.table, "html.parser").select("tbody tr")
        cells = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in rows]
        return {f"{row[0]} {row[2]}": row for row in cells if len(row) > 3}

    lost = repeat("redis_list", audit={"passed": False, "lost": 3})
    invalid = repeat("memory", stamps=[{"stamp": "invalid", "reason": "a child died"}])
    failing = Price("redis_list", "memory", ONCE, [repeat("redis_list"), lost])
    unlucky = Price("memory", "memory", ONCE, [repeat("memory"), invalid])
    prices = Prices([failing, unlucky], "what")

    assert failing.rate_hz is None
    assert failing.spoilt == "1 of 2 failed"
    assert "3 lost" in told(prices)["redis_list no figure"][3]
    assert unlucky.rate_hz == (5.0, 5.0, 5.0, 1)
    assert "a child died" in told(prices)["memory invalid, left out"][3]
    assert "redis_list: no figure" in charts.durability(prices).alt


def test_repeats_come_in_blocks_of_random_order_and_the_watched_ones_last() -> None:
    cells = [("a", "memory"), ("a", "flushed"), ("b", "memory")]
    order = pricing._order(cells, 2, seed=1)
    assert order == pricing._order(cells, 2, seed=1)
    assert [watched for _, watched in order] == [False] * 6 + [True] * 3
    assert all(sorted(cell for cell, _ in order[at : at + 3]) == sorted(cells) for at in (0, 3, 6))


@pytest.mark.parametrize(
    ("wrong", "told"), [({"repeats": 0}, "repeats is 0"), ({"backends": "redis_lst"}, "did you mean 'redis_list'")]
)
def test_bad_input_is_refused_before_anything_is_started(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        pricing.durability(**wrong)
