"""The report: run the notebooks for every backend, render a page of each, and one that compares them all."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from imqueue import client, settings
from imqueue.notebook import attach
from imqueue.report import record
from imqueue.report.notebooks import Executed, check, execute
from imqueue.report.pages import Pages
from imqueue.report.plan import CONTROLS, PROFILES, Profile, Step, backends_named, planned, profile_named
from imqueue.report.record import Clock, Outcome
from imqueue.results import Result
from imqueue.words import Html, enumeration
from imqueue.workload import BadInput, choose

__all__ = ["PROFILES", "Profile", "report"]

NOTEBOOKS = Path(__file__).resolve().parents[3] / "notebooks"
COMPARISON = "90_compare"
PRICE = "30_durability"
_CELL_MAX_S = 900.0  # a bound on one cell beyond what its trial may take
_PRICE_MAX_S = 4 * 3600.0  # there one cell runs all trials of all backends


def report(
    profile: str | Profile = "quick",
    backends: str = "",
    *,
    data: Path | None = None,
    notebooks: Path = NOTEBOOKS,
    seed: int | None = None,
    reference: str = "",
) -> int:
    """Run and render everything; then 0, or 1 where a notebook or an audit failed (and one sentence names it).

    `backends`: names with commas between them; empty or `all`: whatever is here. `seed`: of the order of repeats.
    `reference`: the backends that others are set against, each in its groups; empty: the first by name.
    Raises `BadInput` before anything is started.
    """
    chosen = profile if isinstance(profile, Profile) else profile_named(profile)
    wanted = backends_named(backends)
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    run = _Run(chosen, data or settings.data_dir(), notebooks, seed, reference)
    _check_reference(reference, wanted)
    with run.clock.timed("driver and servers"):
        here = run.prepare(wanted)
    _check_reference(reference, here)
    steps = planned(chosen, here, seed, run.controls)
    for notebook, parameters in {step.notebook: step.parameters for step in steps}.items():
        check(notebooks / f"{notebook}.ipynb", parameters)
    try:
        run.steps(steps)
        run.price(here)
    except KeyboardInterrupt:
        if (trial := attach()) is not None:
            trial.stop()
        raise
    run.compare()
    return run.close()


@dataclass
class _Run:
    profile: Profile
    data: Path
    notebooks: Path
    seed: int
    reference: str = ""
    clock: Clock = field(default_factory=Clock)
    controls: list[str] = field(default_factory=list)  # that can run here
    left_out: list[dict[str, str]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    pages: Pages = field(default_factory=Pages)
    failures: dict[str, str] = field(default_factory=dict)  # why, by the name of the page

    def __post_init__(self) -> None:
        now = datetime.now(UTC)
        self.made_at = now.isoformat(timespec="seconds")
        self.trials = self.data / "trials"
        self.folder = self.data / "reports" / f"{now:%Y%m%d-%H%M%S}-{self.profile.name}"

    def prepare(self, wanted: Sequence[str]) -> list[str]:
        """Bring up the servers, side by side. Returns the backends that can run."""
        missing = client.connect(self.data).ask("GET", "/backends")
        self.controls = [name for name in CONTROLS if missing[name] is None]
        with ThreadPoolExecutor() as pool:
            reasons = list(pool.map(lambda name: missing[name] or self._bring_up(name), wanted))
        here = self.choose_here(dict(zip(wanted, reasons, strict=True)))
        try:
            (self.folder / "notebooks").mkdir(parents=True)
        except OSError as error:
            raise BadInput(f"the data folder {self.data} cannot be written: {error.strerror}") from error
        return here

    def choose_here(self, found: dict[str, str | None]) -> list[str]:
        """The backends without a reason against them; the others are left out, and it is said at once."""
        self.left_out = [{"backend": name, "reason": reason} for name, reason in found.items() if reason]
        here = [name for name, reason in found.items() if not reason]
        if not here:
            told = "; ".join(f"{each['backend']}: {each['reason']}" for each in self.left_out)
            raise BadInput(f"no backend to compare: {told}")
        for each in self.left_out:
            _say(f"left out: {each['backend']}: {each['reason']}")
        return here

    def _bring_up(self, backend: str) -> str | None:
        try:  # a connection of its own: requests' sessions belong to one thread
            client.connect(self.data).ask("POST", "/url", {"backend": backend})
        except client.DriverError as error:
            return str(error)
        return None

    def steps(self, steps: Sequence[Step]) -> None:
        """Run all, whatever happens to one."""
        total_s = sum(step.guess_s for step in steps)
        _say(f"{len(steps)} trials, about {_duration(total_s)} ({self.profile.what(self.seed)})")
        layout = "{desc:<32} {percentage:3.0f}%|{bar:24}| {elapsed}, about {remaining} left"
        with tqdm(total=total_s, bar_format=layout, disable=False, file=sys.stderr) as bar:
            for step in steps:
                bar.set_description_str(f"{step.backend} {step.durability} {step.notebook}")
                self.outcomes.append(self._step(step))
                bar.update(step.guess_s)

    def _step(self, step: Step) -> Outcome:
        before = _folders(self.trials)
        executed = self._execute(step.notebook, step.parameters, step.name)
        trial = _new_trial(self.trials, _folders(self.trials) - before, step)
        outcome = Outcome(step, trial, _wrong(executed, trial), executed.wall_s)
        if outcome.error:
            self.failures[step.name] = outcome.error
        clock = Clock()
        with clock.timed("page"):
            title = f"{step.backend}, {step.durability}: {step.shape}"
            page = self.pages.render(executed.notebook, title=title, back="index.html", notice=outcome.error)
            (self.folder / f"{step.name}.html").write_text(page)
        outcome.render_s = clock.spent_s["page"]
        return outcome

    def _execute(self, notebook: str, parameters: Any, name: str, cell_max_s: float = _CELL_MAX_S) -> Executed:
        output = self.folder / "notebooks" / f"{name}.ipynb"
        environment = {"IMQUEUE_DATA": str(self.data), "TQDM_DISABLE": "1"}
        return execute(
            self.notebooks / f"{notebook}.ipynb", parameters, output, environment=environment, timeout_s=cell_max_s
        )

    def price(self, backends: Sequence[str]) -> None:
        """Render the page of what durability costs, from trials of its own, where the profile has one."""
        if self.profile.price is None:
            return
        _say(f"{PRICE}: every backend in every class of durability that it has")
        with self.clock.timed(PRICE):
            before = _folders(self.trials)
            parameters = {"backends": ",".join(backends), **self.profile.price}
            executed = self._execute(PRICE, parameters, PRICE, _PRICE_MAX_S)
            error = executed.error or _unsound_ones(self.trials, _folders(self.trials) - before)
            page = self.pages.render(
                executed.notebook, title="The price of durability", back="index.html", notice=error
            )
        (self.folder / f"{PRICE}.html").write_text(page)
        if error:
            self.failures[PRICE] = error

    def compare(self) -> None:
        """Render ``index.html``, which ends with a table of where the time went."""
        about = {
            "profile": self.profile.name,
            "made_at": self.made_at,
            "what": self.profile.what(self.seed),
            "seed": self.seed,
            "trials": os.path.relpath(self.trials, self.folder),
            "left_out": self.left_out,
        }
        record.write(self.folder, about, self.outcomes)
        with self.clock.timed(COMPARISON):
            executed = self._execute(COMPARISON, {"trials": str(self.folder), "reference": self.reference}, COMPARISON)
        if executed.error:
            self.failures[COMPARISON] = executed.error
        self.times = record.times(self.data, self.clock, self.outcomes)
        page = self.pages.render(
            executed.notebook,
            title=f"Work queues compared, {self.made_at[:10]}",
            notice=self._notice(),
            closing=self._to_price() + record.times_html(self.times),
        )
        (self.folder / "index.html").write_text(page)

    def _notice(self) -> Html | None:
        """What failed, with links to the pages that have the errors."""
        if not self.failures:
            return None
        pages = {PRICE, *(outcome.step.name for outcome in self.outcomes)}
        names = [f'<a href="{name}.html">{name}</a>' if name in pages else name for name in self.failures]
        total = len(self.outcomes) + 1 + (self.profile.price is not None)
        return Html(f"{len(names)} of {total} notebooks failed: {enumeration(names)}.")

    def _to_price(self) -> str:
        if self.profile.price is None:
            return ""
        told = f'<a href="{PRICE}.html">Every backend in every class of durability that it has, with its fsyncs</a>'
        return f'<section class="jp-RenderedHTMLCommon"><h2>What durability costs</h2><p>{told}.</p></section>'

    def close(self) -> int:
        """Point ``data/report`` here, tell where the time went, and the exit code."""
        _point(self.data / "report", self.folder)
        print(record.times_text(self.times))
        print(f"report: {self.data / 'report' / 'index.html'}")
        if not self.failures:
            return 0
        reason = next(iter(self.failures.values()))
        _say(f"all pages are there, but {enumeration(list(self.failures))} failed: {reason}")
        return 1


def _check_reference(names: str, backends: Sequence[str]) -> None:
    for name in names.split(","):
        if name.strip():
            choose("reference", name.strip(), backends)


def _folders(trials: Path) -> set[str]:
    return {each.name for each in trials.iterdir()} if trials.is_dir() else set()


def _new_trial(trials: Path, new: set[str], step: Step) -> Result | None:
    """The trial that a notebook made: among the folders that are new, the last of its backend and shape."""
    for name in sorted(new, reverse=True):
        if (trials / name / "trial.json").is_file():
            trial = Result(trials / name)
            if (trial.backend, trial.shape) == (step.backend, step.shape):
                return trial
    return None


def _wrong(executed: Executed, trial: Result | None) -> str | None:
    """Why a step failed. A stamp alone is no failure: it is shown wherever the trial is."""
    if executed.error:
        return executed.error
    if trial is None:
        return "the notebook left no trial"
    return _unsound(trial)


def _unsound(trial: Result) -> str | None:
    audit = trial.info.get("audit")
    sound = trial.info["state"] == "done" and audit and audit["passed"]
    return None if sound else trial.verdict()


def _unsound_ones(trials: Path, names: set[str]) -> str | None:
    """What is wrong with those among `names` that finished; None: nothing."""
    finished = [Result(trials / name) for name in sorted(names) if (trials / name / "trial.json").is_file()]
    return " ".join(wrong for each in finished if (wrong := _unsound(each))) or None


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _point(link: Path, folder: Path) -> None:
    """Switch the symlink at once, so that nobody ever finds none."""
    new = link.with_name(f".{link.name}-{secrets.token_hex(4)}")
    new.symlink_to(os.path.relpath(folder, link.parent))
    new.replace(link)


def _say(sentence: str) -> None:
    tqdm.write(f"imqueue: {sentence}", file=sys.stderr)
