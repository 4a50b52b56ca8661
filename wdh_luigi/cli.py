"""The ``wdh`` command: what is beside the run itself."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from wdh_luigi import config, embedded
from wdh_luigi.errors import WdhError


class OneLineErrors(click.Group):
    """A group of commands whose errors are one line on standard error, with exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except WdhError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)


@click.group(cls=OneLineErrors)
def main() -> None:
    """Take trustees' Excel workbooks into PostgreSQL."""


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
