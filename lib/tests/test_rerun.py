"""A trial can be repeated from its trial.json, and what is not the same here is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made import make_trial

from imqueue import cli, notebook, version
from imqueue.fleet import why_missing
from imqueue.provenance import Rerun, conditions, differences
from imqueue.results import Result
from imqueue.settings import servers_required
from imqueue.workload import BadInput

pytestmark = pytest.mark.usefixtures("one_driver")

SMALL: dict[str, Any] = {"messages": 2_000, "warmup_messages": 100, "progress": False}


@pytest.fixture(scope="module")
def original(one_driver: Path) -> Result:
    if reason := why_missing("redis_list"):
        assert not servers_required(), reason
        pytest.skip(reason)
    return notebook.run("redis_list", batch=50, **SMALL)


def doctored(original: Result, folder: Path, **changes: Any) -> Path:
    """The same trial, as another machine would have told it; a dict in `changes` is merged into what is there."""
    info = dict(original.info)
    for name, value in changes.items():
        info[name] = {**info[name], **value} if isinstance(value, dict) else value
    folder.mkdir()
    (folder / "trial.json").write_text(json.dumps(info))
    return folder


def test_a_trial_repeated_at_once_differs_in_nothing(original: Result, capsys: pytest.CaptureFixture[str]) -> None:
    again = notebook.rerun(original.id, progress=False)

    assert again.id != original.id
    assert again.passed
    assert again.differences.to_dict("records") == []
    assert "no recorded condition differs" in capsys.readouterr().out
    assert again.workload.durability == original.info["durability"], "a default may be another one elsewhere"
    assert again.workload.changed(durability=None) == original.workload


def test_what_is_not_the_same_here_is_named_exactly(
    original: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = doctored(
        original,
        tmp_path / "elsewhere",
        machine={"cores": 96, "governor": "powersave"},
        versions={"server": "redis 6.9.9"},
        server_settings={"appendfsync": "no"},
        code={"commit": "0" * 40},
    )
    assert cli.main(["rerun", str(elsewhere)]) == 0
    told = capsys.readouterr().out
    again = notebook.result(notebook.trials()[-1])

    rows = differences(Result(elsewhere).info, again.info).to_dict("records")
    found = {row["what"]: (row["then"], row["now"]) for row in rows}
    assert set(found) == {
        "machine: cores",
        "machine: governor",
        "server",
        "server: appendfsync",
        "imqueue: commit",
    }
    assert found["server"] == ("redis 6.9.9", original.info["versions"]["server"])
    assert found["machine: cores"] == ("96", str(original.info["machine"]["cores"]))
    assert all(name in told for name in found)


def changes_of(*results: Result) -> list[list[dict[str, Any]]]:
    return [result.info["changes"] for result in results]


def test_changes_made_by_hand_are_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    trial = notebook.start("redis_list", rate_hz=200, duration_s=1.8, warmup_messages=100)
    trial.rate_hz = 1_000
    trial.change(workers=2, producers=2)
    first = trial.wait(progress=False)
    again = notebook.rerun(first.folder, progress=False)

    assert [each["rate_hz"] for each in again.info["segments"]] == [200, 1_000, 1_000]
    assert [each["producers"] for each in again.info["segments"]] == [1, 1, 2]
    assert "workers 1 → 2" in {each["text"] for each in again.events}
    assert first.workload.rate_hz == 200, "the workload is as it was asked for, and changes stand beside it"
    apart_s = [abs(a["asked_s"] - b["asked_s"]) for a, b in zip(*changes_of(first, again), strict=True)]
    assert max(apart_s) < 0.2
    assert again.differences.empty
    told = capsys.readouterr().out
    assert "rate_hz 1000" in told
    assert f"so again, within {max(apart_s):.3g} s of these times" in told


def test_how_near_changes_were_made_again_is_measured(tmp_path: Path) -> None:
    def sentence(*now: dict[str, Any]) -> str:
        folder = tmp_path / str(len(now))
        original = Result(make_trial(folder, changes=then))
        return Rerun(make_trial(folder, changes=list(now)), original).sentence()

    then = [{"asked_s": 1.0, "rate_hz": 5.0}, {"asked_s": 2.0, "workers": 2}]
    assert "so again, within 0.25 s of these times" in sentence(then[0], {"asked_s": 2.25, "workers": 2})
    assert "1 of these 2 changes were made again" in sentence(then[1])


def test_which_code_ran_is_told_in_words_that_hold_elsewhere(original: Result) -> None:
    code = original.info["code"]
    assert code == version.code()
    assert set(code) == {"source", "commit", "edited"}
    assert code["source"] in original.conditions
    assert original.info["versions"]["prometheus"] in original.conditions


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"workload": {"colour": "red"}, "versions": {"packages": {"imqueue": "9.9"}}},
            "made by imqueue 9.9, cannot be repeated by imqueue .*: unknown parameter 'colour'",
        ),
        ({"workload": {"batch": 0}}, "batch is 0; allowed"),
        ({"backend": "redis_cobweb"}, "redis_cobweb, a backend that is not in this imqueue"),
        ({"changes": None, "segments": [{}, {}]}, "too old to say how"),
    ],
)
def test_what_cannot_be_repeated_is_refused_in_one_sentence(
    original: Result, tmp_path: Path, changes: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = notebook.trials()
    folder = doctored(original, tmp_path / "elsewhere", **changes)
    with pytest.raises(BadInput, match=says) as refused:
        notebook.rerun(folder)
    assert "\n" not in str(refused.value)
    assert cli.main(["rerun", str(folder)]) == 2
    assert notebook.trials() == before


def test_a_server_that_is_not_here_is_named(original: Result, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("imqueue.fleet.why_missing", lambda _: "redis-server is not on this machine; get it")
    with pytest.raises(BadInput, match="cannot run here: redis-server is not on this machine; get it"):
        notebook.rerun(original.folder)


def test_a_folder_without_a_trial_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no finished trial"):
        notebook.rerun(tmp_path)
    (tmp_path / "trial.json").write_text("{")
    with pytest.raises(BadInput, match=r"trial\.json cannot be read"):
        notebook.rerun(tmp_path)


def test_what_an_older_trial_did_not_record_is_told_as_that(original: Result, tmp_path: Path) -> None:
    old = Result(make_trial(tmp_path))
    found = differences(old.info, original.info).set_index("what")
    assert found.loc["imqueue: commit", "then"] == "(not recorded)"
    assert conditions(old.info)["workload: durability"] == "delayed"
