"""The instrument is tested on liars: the audit names what each did, by integer."""

from __future__ import annotations

from pathlib import Path

import pytest
from lying import BY_THE_BYTE, CASES, LIARS, WORKLOAD, run_loops, tell

from imqueue import audit, notebook

DIRECT = {**CASES, **BY_THE_BYTE}
ONE_BY_ONE = [name for name, case in DIRECT.items() if case.lie.get("lie") not in ("drops", "reorders")]


@pytest.mark.parametrize(("liar", "batch"), [*((name, 100) for name in DIRECT), *((name, 1) for name in ONE_BY_ONE)])
def test_the_loops_and_the_audit_name_what_a_liar_did(
    liar: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMQUEUE_BACKENDS", str(LIARS))
    tell(tmp_path, DIRECT[liar].lie)
    DIRECT[liar].check(audit.as_dict(run_loops(tmp_path, **{**WORKLOAD, "batch": batch})))


@pytest.mark.parametrize("liar", CASES)
def test_a_real_trial_of_a_liar_says_what_it_did(liar: str, liars_data: Path) -> None:
    tell(liars_data / "servers" / "liar", CASES[liar].lie)
    result = notebook.run("liar", **WORKLOAD, progress=False)
    print(f"\n{liar} | {result.verdict()} {result.info['audit']['examples']}")

    assert result.info["error"] is None
    CASES[liar].check(result.info["audit"])
    assert result.passed == result.info["audit"]["passed"], "no liar spoils the harness"
