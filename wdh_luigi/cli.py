"""The ``wdh`` command: what is beside the run itself."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from wdh_luigi import (
    config,
    crew,
    discover,
    domains,
    embedded,
    ground,
    history,
    housekeeping,
    launch,
    luigid,
    months,
    places,
    plan,
    preview,
    report,
    steps,
    targets,
    warehouse,
    workbook,
)
from wdh_luigi import trace as lineage
from wdh_luigi.config import DomainConfig
from wdh_luigi.crew import Crew, Order
from wdh_luigi.errors import INTERRUPTED, DatabaseError, PlanError, WdhError, one_line
from wdh_luigi.workbook import guard


class OneLineErrors(click.Group):
    """A group of commands whose errors are one line on standard error, with exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except WdhError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)


@click.group(cls=OneLineErrors)
def main() -> None:
    """Take trustees' Excel workbooks into PostgreSQL."""


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--sheet", help="A sheet's name, or its index from 0; by default the first visible worksheet.")
@click.option("--head", type=click.IntRange(min=0), help="Print so many rows only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--domain", help="Show what this domain's pipeline makes of the workbook.")
def read(file: Path, sheet: str | None, head: int | None, as_json: bool, domain: str | None) -> None:
    """Show a workbook as the reader sees it: its sheets, and a sheet's rows. Nothing is written."""
    settings = config.load_settings()
    run = functools.partial(
        guard.run, shown=str(file), memory=settings.read_memory_mb << 20, seconds=settings.read_seconds
    )
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out:  # the reading process's own standard output is caught
        if domain is None:
            run(preview.show, file, workbook.opener("auto", file.name), sheet, head, as_json, out)
        else:
            entry = _entry(domain)
            month = discover.month_of(file.name, entry.pattern)
            reader = workbook.opener(entry.reader, file.name)
            run(preview.show_domain, file, reader, sheet, domains.get(domain), entry, month, out)


@main.command()
@click.argument("plans", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--expect-diff", is_flag=True, help="Refuse a plan that would change anything else than wdh diff found.")
def apply(plans: tuple[Path, ...], expect_diff: bool) -> None:
    """Apply reviewed plans, each in one transaction; also on another machine than the one that wrote them."""

    def one(connect: Callable[[], warehouse.Connection], path: Path) -> None:
        def check(connection: warehouse.Connection) -> None:
            if expect_diff:
                ground.expect(connection, path)

        click.echo(_applied(path, warehouse.apply_once(connect, path, reverted_too=True, check=check)))

    _each_plan(plans, one)


@main.command()
@click.argument("plans", type=click.Path(path_type=Path), nargs=-1, required=True)
def diff(plans: tuple[Path, ...]) -> None:
    """Ask the database what plans would change, and keep the answer beside each; nothing is changed."""

    def one(connect: Callable[[], warehouse.Connection], path: Path) -> None:
        found = warehouse.again(lambda: ground.diff(connect(), path))
        ground.keep(path, found)
        _show_ground(path, found)

    _each_plan(plans, one)


@main.command()
@click.argument("load", type=click.IntRange(min=1))
@click.option("--domain", help="Whose load it is, where tables in several schemas have one of that number.")
def revert(load: int, domain: str | None) -> None:
    """
    Take a load back: its rows leave the table, and those that it had replaced come back (keep_history: true).

    LOAD is its load_id in wdh_load. It stays reverted until its workbook changes or wdh apply is given its plan.
    """
    settings = config.load_settings()
    path = settings.data_sources_config
    sources = config.load_data_sources(path)
    entries = [config.domain_config(sources, domain, path)] if domain else list(sources.domains.values())
    schemas = sorted({plan.schema_of(entry.table) for entry in entries})
    with contextlib.closing(warehouse.connect(warehouse.uri_of(settings, click.echo))) as connection:
        schema = history.find(connection, schemas, load)
        done = history.revert(connection, schema, load, max(entry.lock_timeout for entry in entries))
    click.echo(
        f"load {load} of {one_line(done.workbook)} is reverted: {done.removed} rows taken out, {done.restored} put"
        " back; it stays so until its workbook changes or wdh apply is given its plan"
    )


@main.command()
@click.argument("domain")
@click.argument("key", metavar="COLUMN=VALUE...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def trace(domain: str, key: tuple[str, ...], as_json: bool) -> None:
    """
    Tell where rows of a domain's table come from: the cells as typed, the rules that changed them, the load.

    The columns are those of the table's key, as in plan_code=P001; a value may be spelt as in a workbook.
    """
    settings, entry, declared = config.load_settings(), _entry(domain), domains.get(domain)
    steps.check_key(declared, entry, str(settings.data_sources_config))
    asked = lineage.terms(key, declared, entry)
    known = lineage.Known(settings, declared, entry, _discovery())
    uri = warehouse.uri_of(settings, functools.partial(click.echo, err=True))
    with contextlib.closing(warehouse.connect(uri)) as connection:
        document = lineage.trace(connection, declared, entry, asked, known)
    if as_json:
        click.echo(targets.dumps(document))
    else:
        click.echo("\n".join(map(one_line, lineage.lines(document))))


def _seconds(context: click.Context, option: click.Parameter, value: str) -> float:
    """Return the seconds of a span of time like 90d."""
    found = re.fullmatch(r"(\d{1,6})([hdw])", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no span of time: write it like 90d, 12h or 4w.", context, option)
    return int(found[1]) * {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}[found[2]]


@main.command("status")
@click.option("--domain", help="One domain only; by default each of data_sources.yml.")
@click.option("--period", help="2024-11, latest or all; by default what a run takes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show_status(domain: str | None, period: str | None, as_json: bool) -> None:
    """
    Tell how far each place is (a domain's table, period and source), what the next run does for it, and why.

    Nothing is written. The database is asked where WDH_DATABASE_URI is set. Exits with 0 when there is nothing to do
    (everything chosen is loaded, or where no database is set planned), with 3 when there is, with 1 on an error.
    """
    errors: list[str] = []
    connection, unknown = None, "WDH_DATABASE_URI is not set"
    try:
        connection = _warehouse()
    except WdhError as error:
        errors.append(unknown := str(error))
    found = []
    for name in _domains(domain):
        try:
            found.append(places.status(name, period, connection, unknown))
        except DatabaseError as error:
            errors.append(unknown := str(error))
            found.append(places.status(name, period, connection := None, unknown))
        except WdhError as error:
            errors.append(str(error))
    if as_json:
        click.echo(targets.dumps({"domains": [one.document() for one in found], "errors": errors}))
    else:
        for one in found:
            _show_domain(one)
    _tell_errors(errors)
    sys.exit(1 if errors else 3 if any(one.to_do for one in found) else 0)


@main.command()
@click.option(
    "--older-than",
    "age",
    callback=_seconds,
    default="90d",
    show_default=True,
    help="What is younger stays; written like 90d, 12h or 4w.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
@click.option("--domain", help="One domain only; by default each of data_sources.yml.")
def clean(age: float, dry_run: bool, domain: str | None) -> None:
    """
    Remove from the work directory what nothing refers to any longer.

    Targets, plans, rejects, failures and receipts of the inbox that neither the present inbox nor the last load of a
    place needs, and what killed runs left; never while wdh run is at work. Exits with 1 when something could not be
    removed.
    """
    cleaned = housekeeping.clean(_domains(domain), age, dry_run=dry_run, connection=_warehouse())
    _show_cleaned(cleaned, "would be removed" if dry_run else "removed")
    _tell_errors(cleaned.errors)
    sys.exit(1 if cleaned.errors else 0)


def _warehouse() -> warehouse.Connection | None:
    """Connect to the database; None where none is set."""
    settings = config.load_settings()
    if settings.database_uri is None:
        return None
    return warehouse.connect(warehouse.uri_of(settings, functools.partial(click.echo, err=True)))


def _domains(domain: str | None) -> list[str]:
    return [domain] if domain else list(config.load_data_sources(config.load_settings().data_sources_config).domains)


def _tell_errors(errors: Iterable[str]) -> None:
    for error in errors:
        click.echo(f"error: {error}", err=True)


def _show_domain(found: places.Domain) -> None:
    """Print a domain's places, a line each, and what they come to."""
    click.echo(one_line(f"{found.domain}, table {found.table}, inbox {found.inbox}"))
    headings = ("period", "source", "state", "rows", "load", "next", "workbook")
    report.show_places(headings, (_place_cells(one) for one in found.places), sys.stdout)
    if found.database is not None:
        click.echo(one_line(f"what is loaded is not known: {found.database}"))
    if found.gone:
        some = ", ".join(" ".join(filter(None, (one["period"], one["source"]))) for one in found.gone[:_GONE_SHOWN])
        more = "" if len(found.gone) <= _GONE_SHOWN else f" and {len(found.gone) - _GONE_SHOWN} more, see --json"
        click.echo(one_line(f"{len(found.gone)} loaded, no workbook in the inbox any more: {some}{more}"))
    states = ", ".join(f"{count} {state}" for state, count in found.states().items())
    count = "1 place" if len(found.places) == 1 else f"{len(found.places)} places"
    click.echo(f"{count}: {states}; {found.to_do or 'nothing'} to do\n")


_GONE_SHOWN = 5


def _place_cells(one: places.Place) -> list[str]:
    rows = f"{one.rows['accepted']:,} accepted, {one.rows['rejected']:,} rejected" if one.rows else ""
    load = ""
    if one.loaded:
        at, by = (one.loaded["at"], one.loaded["by"])
        load = f"{one.loaded['load_id']} {places.minute(at)} by {by}"
    following = f"{one.next} onward: {one.why}" if one.next else f"nothing: {one.why}"
    version = f" (V{one.version})" if one.version else ""
    return [one.period, one.source, one.state, rows, load, following, one.workbook + version]


def _show_cleaned(cleaned: housekeeping.Cleaned, word: str) -> None:
    for kind, (files, size) in cleaned.kinds.items():
        click.echo(f"{kind:<10}{files:>8,}  {_size(size):>9}")
    files, size = (sum(numbers) for numbers in zip(*cleaned.kinds.values(), strict=True)) if cleaned.kinds else (0, 0)
    click.echo(f"{files:,} {word} ({_size(size)}), {cleaned.kept:,} kept")


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def _each_plan(plans: tuple[Path, ...], action: Callable[[Callable[[], warehouse.Connection], Path], None]) -> None:
    """Do something with each plan; one that fails is told, and the others are done."""
    uri = warehouse.uri_of(config.load_settings(), click.echo)
    connection = warehouse.connect(uri)

    def connect() -> warehouse.Connection:
        nonlocal connection
        if connection.closed:
            connection = warehouse.connect(uri)
        return connection

    failed = 0
    for path in plans:
        try:
            action(connect, path)
        except WdhError as error:
            click.echo(f"error: {error}", err=True)
            failed += 1
    connection.close()
    sys.exit(1 if failed else 0)


def _show_ground(path: Path, found: ground.Ground) -> None:
    click.echo(f"{path}: {found.counts}")
    for key, column, old, new in found.examples:
        click.echo(one_line(f"    {key} {column}: {old or 'blank'} -> {new or 'blank'}"))


def _applied(path: Path, applied: warehouse.Applied) -> str:
    receipt = applied.receipt
    if not applied.loaded:
        mend = "nothing was done"
        raise PlanError(str(path), f"its place's newest load is this one already (load {receipt.load_id})", mend)
    return f"{path}: {receipt.deleted} deleted, {receipt.inserted} inserted (load {receipt.load_id})"


def _entry(domain: str) -> DomainConfig:
    """Return a domain's entry; its defaults where there is no data_sources.yml."""
    path = config.load_settings().data_sources_config
    if path.exists():
        return config.domain_config(config.load_data_sources(path), domain, path)
    return DomainConfig(pattern="", table=domain, mode="append")


def _discovery() -> config.Discovery:
    path = config.load_settings().data_sources_config
    return config.load_data_sources(path).discovery if path.exists() else config.Discovery()


def _ordering(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the parameters of ProcessDomain, and Luigi's own that matter."""
    options = [
        click.option(
            "--domain", default="trustee_performance", show_default=True, help="An entry of data_sources.yml."
        ),
        click.option("--mode", help="delete_insert or append; by default what data_sources.yml says."),
        click.option("--plan-only", type=bool, default=True, show_default=True, help="false applies the plans."),
        click.option("--sheet", help="A sheet's name, or its index from 0."),
        click.option("--diff", is_flag=True, help="Ask the database what the plans would change."),
        click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes at work."),
        click.option(
            "--scheduler-url", help="A luigid, to watch the run in; by default the command schedules by itself."
        ),
        click.option("--scheduler-host", help="The same by its host."),
        click.option("--scheduler-port", type=int, default=8082, show_default=True, help="With --scheduler-host."),
        click.option("--local-scheduler", is_flag=True, help="No luigid: the default."),
        click.option("--join", is_flag=True, help="Share the work with other runs that join, by the same luigid."),
        click.option(
            "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), help="DEBUG: tracebacks."
        ),
    ]
    return functools.reduce(lambda found, option: option(found), reversed(options), command)


@main.command()
@click.option("--period", help="2024-11, latest or all; by default what select says.")
@_ordering
def run(period: str | None, log_level: str | None, **options: Any) -> None:
    """
    Take a domain's workbooks into its table: plans by default, loads with --plan-only false.

    What ProcessDomain does under luigi, one run of a domain at a time. Exits with 0 when every workbook is complete,
    whoever did the work; 30: one failed; 35: luigid or the database went away; 40: refused; 10: a run is going on.
    """
    launch.set_log_level(log_level)
    sys.exit(crew.ended(lambda: crew.go(_order(options, period), _crew(options), sys.stdout)))


@main.command()
@click.option("--from", "first", required=True, metavar="MONTH", help="The first month, 2005-01.")
@click.option("--to", "last", required=True, metavar="MONTH", help="The last month, 2024-12.")
@_ordering
def backfill(first: str, last: str, log_level: str | None, **options: Any) -> None:
    """
    Run a domain month by month, each month a run of its own.

    A month without a workbook is passed over, a month that fails does not stop the others. Stopped and started again,
    it goes on where it was: what is done costs next to nothing. Exit codes are those of wdh run.
    """
    launch.set_log_level(log_level or "WARNING")
    sys.exit(crew.ended(lambda: months.go(_order(options), _crew(options), first, last, sys.stdout)))


def _order(options: dict[str, Any], period: str | None = None) -> Order:
    return Order(period=period, **{name: options[name] for name in ("domain", "mode", "plan_only", "sheet", "diff")})


def _crew(options: dict[str, Any]) -> Crew:
    url, host = options["scheduler_url"], options["scheduler_host"]
    if host and not url:
        url = f"http://{host}:{options['scheduler_port']}"
    if url and options["local_scheduler"]:
        raise click.UsageError("--local-scheduler is without luigid: leave out one of the two.")
    return Crew(options["workers"], url, options["join"])


@main.group()
def db() -> None:
    """The embedded PostgreSQL of WDH_DATABASE_URI=embedded."""


def _folder() -> Path:
    return config.load_settings().embedded_dir or embedded.default_folder()


@db.command()
def start() -> None:
    """Start it, unless it is up, and print how to connect."""
    server = embedded.start(_folder())
    click.echo(f"embedded PostgreSQL {'started' if server.started else 'is up'} in {server.folder}; connect with:")
    click.echo(f"    {embedded.connect_command(server)}")


@db.command()
def stop() -> None:
    """Stop it; its data stays."""
    stopped = embedded.stop(_folder())
    click.echo(f"embedded PostgreSQL {'stopped' if stopped else 'was not up'} in {_folder()}")


@db.command()
def status() -> None:
    """Tell whether it is up; exit code 3 where it is not."""
    up = embedded.running(_folder())
    click.echo(f"embedded PostgreSQL {'is up' if up else 'is not up'} in {_folder()}")
    sys.exit(0 if up else 3)


@main.group("luigid")
def luigid_group() -> None:
    """Luigi's central scheduler and visualiser, for this machine alone."""


def _luigid_folder() -> Path:
    return config.load_settings().luigid_dir or luigid.default_folder()


@luigid_group.command("start")
@click.option("--port", type=click.IntRange(1, 65535), default=8082, show_default=True, help="On loopback.")
def start_luigid(port: int) -> None:
    """Run it until it is stopped; it prints its address, and keeps its state and log in WDH_LUIGID_DIR."""
    luigid.serve(_luigid_folder(), port, click.echo)


@luigid_group.command("stop")
def stop_luigid() -> None:
    """Stop it; its state stays."""
    stopped = luigid.stop(_luigid_folder())
    click.echo(f"luigid {'stopped' if stopped else 'was not up'} in {_luigid_folder()}")
