"""Verdicts: one reference of the same group, four words, and none where the trials do not carry it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made import make_trial

from imqueue import charts, compare
from imqueue.compare import Comparison
from imqueue.results import Result
from imqueue.verdicts import Verdicts
from imqueue.workload import BadInput

KEPT = {"delivery": "at least once", "settles": "each"}
EIGHT = (1.0, 1.01, 0.99, 1.02, 0.98, 1.03, 0.97, 1.0)


def sums(folder: Path, backend: str, rate_hz: float, n: int = 8, **changes: Any) -> list[Result]:
    return [
        Result(make_trial(folder, backend, "sum", sampled=False, rate_hz=rate_hz * factor, **changes))
        for factor in EIGHT[:n]
    ]


def flows(folder: Path, backend: str, p50_s: float, stamped: tuple[str, ...] = ()) -> list[Result]:
    """Eight flows, of which the first bear one stamp each."""
    results = []
    for index, factor in enumerate(EIGHT):
        due = {"p50_s": p50_s * factor, "p99_s": 3 * p50_s * factor}
        stamps = [{"stamp": stamped[index], "reason": "why"}] if index < len(stamped) else []
        folder_ = make_trial(folder, backend, sampled=False, latency={"due": due, "sent": due}, stamps=stamps)
        results.append(Result(folder_))
    return results


def words(comparison: Comparison, figure: str = "sum_hz", reference: str = "") -> dict[str, str]:
    rows = comparison.verdicts(reference).rows
    return {each.row.backend: each.verdicts[figure].word for each in rows if not each.is_reference}


def forest(verdicts: Verdicts, figure: str = "sum_hz") -> charts.Chart:
    chart = charts.ratios(verdicts, figure)
    assert isinstance(chart, charts.Chart), chart
    return chart


def test_more_messages_a_second_are_faster_and_a_longer_wait_is_slower(tmp_path: Path) -> None:
    results = [*sums(tmp_path, "a", 100.0), *sums(tmp_path, "b", 150.0), *sums(tmp_path, "c", 60.0)]
    results += [*flows(tmp_path, "a", 0.001), *flows(tmp_path, "b", 0.002), *flows(tmp_path, "c", 0.0005)]
    comparison = Comparison(results)
    assert words(comparison) == {"b": "faster", "c": "slower"}
    assert words(comparison, "p50_s") == words(comparison, "p99_s") == {"b": "slower", "c": "faster"}


def test_the_reader_chooses_the_reference(tmp_path: Path) -> None:
    comparison = Comparison([*sums(tmp_path, "a", 100.0), *sums(tmp_path, "b", 150.0)])
    assert words(comparison, reference="b") == {"a": "slower"}
    with pytest.raises(BadInput, match="unknown reference 'bb'; did you mean 'b'"):
        comparison.verdicts("bb")


def test_each_group_has_a_reference_of_its_own(tmp_path: Path) -> None:
    results = [*sums(tmp_path, "a", 100.0), *sums(tmp_path, "b", 150.0)]
    results += [*sums(tmp_path, "c", 10.0, declares=KEPT), *sums(tmp_path, "d", 5.0, declares=KEPT)]
    found = Comparison(results).verdicts("b").groups
    assert [[each.row.backend for each in rows if each.is_reference] for rows in found.values()] == [["c"], ["b"]]


def test_no_backend_without_figures_becomes_the_reference_by_its_name(tmp_path: Path) -> None:
    failed = sums(tmp_path, "a", 100.0, audit={"passed": False, "lost": 1})
    found = Comparison([*failed, *sums(tmp_path, "b", 150.0), *sums(tmp_path, "c", 150.0)]).verdicts()
    assert [each.row.backend for each in found.rows if each.is_reference] == ["b"]


def test_too_few_repeats_tell_nothing_but_how_many_are_needed(tmp_path: Path) -> None:
    comparison = Comparison([*sums(tmp_path, "a", 100.0, n=3), *sums(tmp_path, "b", 900.0, n=3)])
    (found,) = (each.verdicts["sum_hz"] for each in comparison.verdicts().rows if not each.is_reference)
    assert (found.word, found.why) == ("cannot tell", "3 repeats, at least 4 of each side needed")
    assert "3 repeats, at least 4 of each side needed" in comparison.verdicts()._repr_html_()


def test_one_trial_each_has_ratios_and_no_word_for_them(tmp_path: Path) -> None:
    verdicts = Comparison([*sums(tmp_path, "a", 100.0, n=1), *sums(tmp_path, "b", 200.0, n=1)]).verdicts()
    assert "of none can be told" in verdicts.method
    assert "cannot tell: 2, once each" in verdicts._repr_html_()
    assert "at least 4 repeats of each are needed to judge 1 of them" in verdicts._repr_html_()
    assert "One trial each" in forest(verdicts).caption


def test_an_invalid_trial_is_left_out_and_counted(tmp_path: Path) -> None:
    comparison = Comparison([*flows(tmp_path, "a", 0.001), *flows(tmp_path, "b", 0.002, stamped=("invalid",))])
    assert words(comparison, "p50_s") == {"b": "slower"}
    html = comparison.verdicts()._repr_html_()
    assert "7 against 8" in html
    assert "1 invalid left out" in html


@pytest.mark.parametrize("spoilt", ["a", "b"])
def test_a_backend_that_was_overloaded_once_gets_no_verdict_on_its_latency(tmp_path: Path, spoilt: str) -> None:
    stamped = {spoilt: ("overload",)}
    results = [
        each for name in "ab" for each in flows(tmp_path, name, 0.001 * (1 + ord(name) % 2), stamped.get(name, ()))
    ]
    comparison = Comparison(results)
    assert words(comparison, "p50_s") == {"b": "cannot tell"}
    assert "1 of 8 overloaded" in comparison.verdicts()._repr_html_()


def test_a_backend_that_lost_a_message_once_is_never_called_faster(tmp_path: Path) -> None:
    losing = [*sums(tmp_path, "b", 500.0, n=7), *sums(tmp_path, "b", 500.0, n=1, audit={"passed": False, "lost": 1})]
    comparison = Comparison([*sums(tmp_path, "a", 100.0), *losing])
    assert words(comparison) == {"b": "cannot tell"}
    assert comparison.tiers[comparison.row("a").group] == [[comparison.row("a")]]


def test_a_machine_bound_trial_counts_and_its_stamp_is_shown(tmp_path: Path) -> None:
    bound = [{"stamp": "machine-bound", "reason": "all cores"}]
    comparison = Comparison([*sums(tmp_path, "a", 100.0), *sums(tmp_path, "b", 150.0, stamps=bound)])
    assert words(comparison) == {"b": "faster"}
    assert "machine-bound" in comparison.headline


def test_the_conclusion_counts_each_word_group_by_group(tmp_path: Path) -> None:
    results = [*sums(tmp_path, "a", 100.0), *sums(tmp_path, "b", 150.0), *sums(tmp_path, "c", 60.0)]
    results += [*sums(tmp_path, "d", 100.0), *sums(tmp_path, "e", 170.0), *sums(tmp_path, "f", 500.0, n=1)]
    results += [*flows(tmp_path, "a", 0.002), *flows(tmp_path, "b", 0.001)]
    told = Comparison(results).verdicts().conclusion
    assert "At most once, delayed, removes on get, 15 comparisons: faster than a in 4 (e 1, b 3)" in told
    assert "slower than a in 1 (c 1), indistinguishable in 1, cannot tell in 9." in told


def test_what_the_words_rest_on_is_said(tmp_path: Path) -> None:
    found = Comparison(
        [*sums(tmp_path, "a", 100.0), *sums(tmp_path, "b", 150.0), *flows(tmp_path, "a", 0.1)]
    ).verdicts()
    html = found._repr_html_().replace("\u00a0", " ")
    assert "p (Holm) = " in html
    assert "p99 from due ÷ reference (under 1 is faster)" in html
    assert "rate of the sum ÷ reference<" in html
    assert "Tested first: indistinguishable" in found.method
    assert "at least 4 repeats of each side" in found.method
    assert "those that miss the fewest figures" in found.references


# Across groups.


def test_a_ratio_across_groups_needs_to_be_asked_for_and_says_so(tmp_path: Path) -> None:
    comparison = Comparison([*sums(tmp_path, "a", 100.0), *sums(tmp_path, "b", 50.0, declares=KEPT)])
    ours, theirs = comparison.row("a"), comparison.row("b")
    with pytest.raises(BadInput, match="promises of different worth; allowed: across_groups=True"):
        compare.ratio(ours, theirs)
    found = compare.ratio(ours, theirs, across_groups=True)
    assert found.verdict.word == "faster"
    label = "across groups: at most once, delayed, removes on get, against at least once, delayed, settles each"
    assert found.label == label
    assert label in found._repr_html_()


def test_a_ratio_across_durability_is_across_groups(tmp_path: Path) -> None:
    comparison = Comparison([*sums(tmp_path, "a", 100.0), *sums(tmp_path, "a", 50.0, durability="memory")])
    delayed, memory = comparison.row("a", "delayed"), comparison.row("a", "memory")
    with pytest.raises(BadInput, match="across_groups=True"):
        compare.ratio(memory, delayed)
    with pytest.raises(BadInput, match="'a' in class '' under '' is 2 rows"):
        comparison.row("a")


def test_a_ratio_inside_a_group_has_no_label(tmp_path: Path) -> None:
    comparison = Comparison([*sums(tmp_path, "a", 100.0), *sums(tmp_path, "b", 50.0)])
    assert compare.ratio(comparison.row("a"), comparison.row("b")).label == ""


def test_rows_of_unlike_loads_are_never_divided(tmp_path: Path) -> None:
    ours = Comparison(sums(tmp_path, "a", 100.0)).row("a")
    load = {**ours.results[0].info["workload"], "batch": 1}
    theirs = Comparison(sums(tmp_path, "b", 100.0, workload=load)).row("b")
    with pytest.raises(BadInput, match="they differ in batch"):
        compare.ratio(ours, theirs, across_groups=True)


# The picture.


@pytest.mark.parametrize("figure", ["sum_hz", "p50_s", "p99_s"])
def test_the_forest_plot_says_each_verdict_in_words(tmp_path: Path, figure: str) -> None:
    results = [*sums(tmp_path, "a", 100.0), *sums(tmp_path, "b", 150.0)]
    results += [*flows(tmp_path, "a", 0.001), *flows(tmp_path, "b", 0.002)]
    drawn = forest(Comparison(results).verdicts(), figure)
    word = "faster" if figure == "sum_hz" else "slower"
    assert f"1 {word}" in drawn.alt
    assert f"b (at most once, delayed, removes on get): {word}" in drawn.alt
    assert any(text.get_text().endswith(f", {word}") for text in drawn.figure.axes[0].texts)


def test_a_comparison_of_nothing_but_failures_can_be_drawn(tmp_path: Path) -> None:
    lost = {"passed": False, "lost": 1}
    failed = [each for name in "ab" for each in sums(tmp_path, name, 1.0, n=1, audit=lost)]
    drawn = forest(Comparison(failed).verdicts())
    assert "1 cannot tell" in drawn.alt
    assert "data:image/png" in drawn._repr_html_()


def test_backends_that_stand_alone_are_told_to_have_no_rival(tmp_path: Path) -> None:
    alone = Comparison(sums(tmp_path, "a", 1.0, n=2)).verdicts()
    assert "nothing to compare" in str(charts.ratios(alone))
    assert "nothing is judged" in alone.method


def test_an_unknown_figure_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown figure 'p9_s'"):
        forest(Comparison(sums(tmp_path, "a", 1.0)).verdicts(), "p9_s")
