"""`python -m imqueue …`: what the Makefile calls, and a person without a notebook."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from imqueue import client, notebook, registry
from imqueue.client import Busy, DriverError
from imqueue.workload import BadInput, choose


class Parser(argparse.ArgumentParser):
    """Refuses in one line, like the rest of im-queue."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see python -m imqueue --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 a trial or notebook failed, 2 bad input, 3 the driver refused or is gone."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except BadInput as error:
        return _say(error, 2)
    except (Busy, DriverError) as error:
        return _say(error, 3)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stdout = None  # or Python would complain once more at its end
        return 0


def _say(error: object, code: int) -> int:
    print(f"imqueue: {error}", file=sys.stderr)
    return code


def _run(arguments: list[str]) -> int:
    parser = Parser(prog="imqueue", description="Compare work queues on this machine, every message accounted for.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    report = commands.add_parser("report", help="compare all backends: data/report/index.html")
    report.add_argument("--profile", default="quick", help="quick (default) or full")
    report.add_argument("--backends", default="", help="a,b,c; all (default): whatever is here")
    report.add_argument("--reference", default="", help="what the others are set against: a,b; else the first by name")
    run = commands.add_parser("run", help="one trial: imqueue run redis_list rate_hz=2000 duration_s=10")
    run.add_argument("backend")
    run.add_argument("parameters", nargs="*", metavar="name=value", help="fields of imqueue.Workload")
    rerun = commands.add_parser("rerun", help="a finished trial once more, and what differs here: imqueue rerun <path>")
    rerun.add_argument("trial", help="its folder, or its id in the data folder")
    _add_sweep(commands.add_parser("sweep", help="a notebook over a grid of parameters: data/sweeps/<name>/index.html"))
    backends = commands.add_parser("backends", help="what each backend promises, and which are here")
    backends.add_argument("--markdown", action="store_true", help="as README's table, without asking for servers")
    commands.add_parser("up", help="start the driver and all servers, in the background")
    commands.add_parser("down", help="end the driver and everything it owns")
    commands.add_parser("status", help="what is running")
    chosen = parser.parse_args(_checked(arguments, list(commands.choices)))
    if chosen.command is None:
        parser.print_help()
        return 0
    return int(COMMANDS[chosen.command](chosen))


def _checked(arguments: list[str], known: list[str]) -> list[str]:
    if arguments and not arguments[0].startswith("-"):
        choose("command", arguments[0], known)
    return arguments


def _report(chosen: argparse.Namespace) -> int:
    from imqueue import report

    return report.report(chosen.profile, chosen.backends, reference=chosen.reference)


def _add_sweep(sweep: argparse.ArgumentParser) -> None:
    sweep.add_argument("--notebook", default="", help="e.g. 20_flow")
    sweep.add_argument(
        "--grid", default="", help="e.g. 'backend=redis_list,postgres rate_hz=100..10000*5 workers=1..4'"
    )
    sweep.add_argument(
        "--sweep", default="", metavar="FILE", help="a sweep that is kept, e.g. notebooks/sweeps/scaling.yaml"
    )
    sweep.add_argument("--name", default="", help="of its folder; else that of the file, or of notebook and parameters")
    sweep.add_argument("--repeats", type=int, help="runs of each point (default 1)")
    sweep.add_argument("--seed", type=int, help="of the order (default: that of its last run, or a random one)")
    sweep.add_argument(
        "--point-max-s", type=float, help="a point is ended after so long (default: its trial and 120 s)"
    )
    sweep.add_argument("--dry-run", action="store_true", help="list the points and the estimated time")
    sweep.add_argument("--retry", action="store_true", help="run the points that failed once more")
    sweep.add_argument("--force", action="store_true", help="allow more than 10,000 points")


def _sweep(chosen: argparse.Namespace) -> int:
    from imqueue.report import NOTEBOOKS
    from imqueue.sweep import plan, run

    asked = plan.asked(
        NOTEBOOKS,
        notebook=chosen.notebook,
        grid=chosen.grid,
        file=Path(chosen.sweep) if chosen.sweep else None,
        name=chosen.name,
        repeats=chosen.repeats,
        seed=chosen.seed,
        point_max_s=chosen.point_max_s,
    )
    return run.run(asked, force=chosen.force, retry=chosen.retry, dry_run=chosen.dry_run)


def _run_trial(chosen: argparse.Namespace) -> int:
    parameters = dict(_parameter(each) for each in chosen.parameters)
    result = notebook.run(chosen.backend, **parameters)
    print(result.verdict())
    return 0 if result.passed else 1


def _rerun(chosen: argparse.Namespace) -> int:
    repeated = notebook.rerun(chosen.trial)
    print(repeated.verdict())
    if not repeated.differences.empty:
        print(repeated.differences.to_string(index=False))
    return 0 if repeated.passed else 1


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"{text!r} is no parameter; write name=value, e.g. rate_hz=2000")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _backends(chosen: argparse.Namespace) -> int:
    if chosen.markdown:
        print(markdown_table())
        return 0
    for name, row in notebook.backends().iterrows():
        print(f"{name}: {'here' if row['here'] == 'yes' else 'missing: ' + row['here']}")
        if row["built on"]:
            durability, returns = row["durability"], row["unacked returns"]
            print(f"  {row['built on']}")
            print(f"  {row['delivery']}, settles {row['settles']}, unacked returns {returns}; {durability}")
    return 0


def markdown_table() -> str:
    """All backends and what they declare, as README has it; needs no server."""
    rows = {name: registry.describe(registry.load(name).declares) for name in registry.names()}
    columns = list(next(iter(rows.values())))
    lines = [["backend", *columns], ["---"] * (len(columns) + 1)]
    lines += [[f"`{name}`", *row.values()] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _up(_: argparse.Namespace) -> int:
    driver = client.connect()
    for kind, reason in driver.ask("POST", "/servers").items():
        print(f"{kind}: {'up' if reason is None else reason}")
    return _status(_)


def _down(_: argparse.Namespace) -> int:
    print("ended" if client.end() else "nothing was running")
    return 0


def _status(_: argparse.Namespace) -> int:
    driver = client.find()
    if driver is None:
        print("no driver is running (make up starts one)")
        return 0
    status = driver.ask("GET", "/status")
    print(f"driver: pid {status['pid']}, {driver.url}")
    for server in status["servers"]:
        pids = ", ".join(map(str, server["pids"])) or "not ours"
        print(f"{server['kind']} {server['version']}: {server['url']} (pid {pids})")
        if server["note"]:
            print(f"  {server['note']}")
    trial = status["trial"]
    print(f"trial: {trial['id']}, {trial['state']}, {trial['popped']:,} popped" if trial else "trial: none")
    return 0


COMMANDS = {
    "report": _report,
    "run": _run_trial,
    "rerun": _rerun,
    "sweep": _sweep,
    "backends": _backends,
    "up": _up,
    "down": _down,
    "status": _status,
}
