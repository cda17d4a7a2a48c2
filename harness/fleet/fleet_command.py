"""`harness fleet`: runs one study on many hosts."""

import argparse
import os
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness import console
from harness.analysis import show
from harness.experiment.plan import Plan
from harness.experiment.run import add_options, check_options, chosen
from harness.fleet import alike, hosts_file
from harness.fleet.coordinator import Bounds, Coordinator
from harness.fleet.fleet_directory import FleetDirectory
from harness.fleet.fleet_progress import shown, summary
from harness.fleet.host import facts
from harness.fleet.preparing import Prepared, prepare
from harness.report import fleet_page
from harness.results import LIVE

if TYPE_CHECKING:
    from harness.fleet.dask_engine import DaskEngine

_NEEDED = "distributed"
_ENGINE = ("scheduler", "ssh", "local", "listen", "python", "tls_ca_file", "tls_cert", "tls_key")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="harness fleet", description="Run studies on many hosts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="act")
    run = commands.add_parser(
        "run",
        help="run an experiment file on many hosts",
        description="Run an experiment file on many hosts, by dask.distributed. Each block is kept here as soon as it "
        "is measured.",
        epilog="Exit codes: 0 all of the study is kept, 1 hosts are missing or no host may take part, 2 a file or an "
        "argument is wrong, 130 interrupted. Blocks that are under way then end on their hosts, and --resume fetches "
        "them.",
    )
    add = run.add_argument
    add("experiment", metavar="FILE", nargs="?", help="or the name of a study that comes along; not with --resume")
    add("--resume", metavar="DIR", help="go on with a run that ended early, on the same hosts")
    where = run.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="the workers of a Dask cluster that is there")
    where.add_argument("--ssh", metavar="HOSTS", help="hosts to start workers on: a YAML file, see docs/fleet.md")
    where.add_argument("--local", type=console.positive, metavar="N", help="so many workers on this machine")
    mode = run.add_mutually_exclusive_group()
    mode.add_argument("--each", action="store_true", help="every host measures the whole study (the default)")
    mode.add_argument("--share", action="store_true", help="the blocks of one study are dealt to hosts that are alike")
    text = "install this on each host, in an environment of its own, and measure with it; again for each plugin"
    add("--install", action="append", default=[], metavar="WHEEL", help=text)
    add("--workers", type=console.positive, metavar="N", help="with --scheduler: how many to wait for (those there)")
    add("--python", default="", metavar="PATH", help="with --scheduler: what measures; else the Python of each worker")
    add("--listen", default="", metavar="ADDRESS", help="with --ssh: of this machine; else that of the route to hosts")
    text = "how long a host may be silent; then it is dropped, and its block is done again (%(default)g)"
    add("--silent", type=console.seconds, default=60.0, metavar="SECONDS", help=text)
    text = "how long a host that is gone is waited for; then it counts as missing (%(default)g)"
    add("--comeback", type=console.seconds, default=600.0, metavar="SECONDS", help=text)
    for name, what in (("ca-file", "authorities"), ("cert", "certificate"), ("key", "private key")):
        add(f"--tls-{name}", default="", metavar="PEM", help=f"encrypt by TLS: a file with the {what}, on every host")
    add_options(run)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run a study on many hosts. Returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    if not args.resume and not args.experiment:
        parser.error("name an experiment FILE, or --resume DIR")
    if args.resume and (args.experiment or args.output or args.only or args.repeat or args.scale or args.budget):
        parser.error("--resume goes on with a run as it was begun: no FILE, -o, --only, --repeat, --scale or --budget")
    if not args.resume and not (args.scheduler or args.ssh or args.local):
        parser.error("say where: --scheduler ADDRESS, --ssh HOSTS, or --local N to try it")
    if any(tls := [args.tls_ca_file, args.tls_cert, args.tls_key]) and not all(tls):
        parser.error("TLS needs all three: --tls-ca-file, --tls-cert and --tls-key")
    check_options(parser, args)
    return console.main("fleet", lambda: _run(args), stopped=130)


def _run(args: argparse.Namespace) -> int:
    if find_spec(_NEEDED) is None or (args.ssh and find_spec("asyncssh") is None):
        raise console.Failure("this needs dask.distributed: pip install 'transport-harness[fleet]'")
    directory, plan = _reopen(args) if args.resume else (None, chosen(args))
    mode = directory.mode if directory else "share" if args.share else "each"
    if mode == "share" and plan.probing():
        raise ValueError("costly probes have trials of their own, which are not shared: leave them out, or take --each")
    if mode == "share" and plan.design != LIVE:
        raise ValueError("blocks are shared whole, and trials apart are kept one by one: take live blocks, or --each")
    engine = _engine(args)
    with closing(engine):
        if directory:
            pythons: dict[str, str] = directory.fleet["pythons"]
        else:
            prepared, refused = _prepared(engine, args.install, mode)
            taking = [host for host in engine.pythons if host in prepared.facts and host not in refused]
            pythons = {host: prepared.pythons[host] for host in taking}
            where = args.output or f"results/{plan.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            kept = {name: getattr(args, name) for name in _ENGINE}
            kept["ssh"] = args.ssh and os.path.abspath(args.ssh)
            directory = FleetDirectory.create(where, plan, mode, list(pythons), refused, kept)
            traits = {host: alike.traits(prepared.facts[host], "share") for host in pythons}
            same = alike.same_machine({host: prepared.facts[host] for host in pythons})
            directory.note(pythons=pythons, traits=traits, same_machine=same)
        with shown() as drawn:
            bounds = Bounds(args.silent, args.comeback, args.patience, args.quiet, args.beside)
            fleet = Coordinator(engine, directory, plan, pythons, bounds, drawn or (lambda _: None))
            whole = fleet.run()
    if directory.kept:
        show.main([directory.path])
        print(f"\n{fleet_page.write(directory.path)}")
    print(f"{summary(fleet)}: {directory.path}")
    return 0 if whole else 1


def _reopen(args: argparse.Namespace) -> tuple[FleetDirectory, Plan]:
    """The run to go on with. How hosts are reached is as it was, unless an option says otherwise now."""
    directory, plan = FleetDirectory.reopen(args.resume)
    before: dict[str, Any] = directory.fleet["engine"]
    anew = args.scheduler or args.ssh or args.local
    for name in _ENGINE:
        if not getattr(args, name) and not (anew and name in {"scheduler", "ssh", "local"}):
            setattr(args, name, before[name])
    return directory, plan


def _engine(args: argparse.Namespace) -> "DaskEngine":
    from harness.fleet import dask_engine  # noqa: PLC0415  it is not installed with the harness

    dask_engine.configure(dask_engine.Tls(args.tls_ca_file, args.tls_cert, args.tls_key), args.silent)
    if args.scheduler:
        return dask_engine.on_scheduler(args.scheduler, args.workers or 0, args.python)
    if args.local:
        return dask_engine.locally(args.local)
    from harness.fleet.ssh_workers import SshWorkers  # noqa: PLC0415

    return SshWorkers(hosts_file.read(args.ssh), args.listen).engine(wait=not args.resume)


def _prepared(engine: "DaskEngine", wheels: Sequence[str], mode: str) -> tuple[Prepared, dict[str, str]]:
    """Ask each host what it is, and say who takes part. Raises Failure where nothing is left."""
    prepared = prepare(engine, engine.pythons, engine.unreachable, wheels)
    try:
        refused = prepared.refused | alike.refused(prepared.facts, mode, facts())
    except ValueError as error:
        raise console.Failure(str(error)) from None
    print(alike.table(list(engine.pythons), prepared.facts, refused))
    if not prepared.facts.keys() - refused.keys():
        reasons = "; ".join(dict.fromkeys(refused.values()))
        raise console.Failure(f"no host may take part: {reasons}")
    return prepared, refused
