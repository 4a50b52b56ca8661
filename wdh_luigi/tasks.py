"""
The Luigi graph: DiscoverFiles -> ReadExcel -> ProcessTrustee -> Load, under ProcessDomain.

The inbox is scanned and hashed once, when ProcessDomain is made; that snapshot fixes which workbooks there are, so
that requires() is static. Each workbook's tasks are known by the content that they depend on: one workbook is one
task, whoever asks, and what is done is never done again.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Sequence
from typing import Any, cast

import luigi
from luigi.parameter import ParameterVisibility
from luigi.task_register import Register

from wdh_luigi import launch, run, watch
from wdh_luigi.discover import Snapshot
from wdh_luigi.errors import ConfigError
from wdh_luigi.steps import Steps

launch.set_luigi_defaults()

_HIDDEN = ParameterVisibility.HIDDEN  # from who looks at the visualiser, where it says nothing


class Switch(luigi.BoolParameter):
    """A switch that takes true or false, and says so in one line."""

    parsing = luigi.BoolParameter.EXPLICIT_PARSING

    def parse(self, value: Any) -> Any:
        try:
            return super().parse(value)
        except ValueError:
            raise ConfigError("--plan-only", f"{value!r} is neither true nor false", "write one of them") from None


class DiscoverFiles(luigi.Task):
    """Write the discovery receipt: every file of the inbox, and which are taken or why not."""

    domain = luigi.Parameter()
    snapshot = luigi.Parameter(visibility=_HIDDEN)

    def output(self) -> luigi.LocalTarget:
        return luigi.LocalTarget(str(run.receipt_path(self.domain, self.snapshot)))

    def run(self) -> None:
        run.write_receipt(run.frozen(self.domain, self.snapshot))


class WorkbookTask(luigi.Task):
    """A step of one workbook, known by the key of all that it depends on."""

    domain = luigi.Parameter()
    workbook = luigi.Parameter(description="the workbook's path below the inbox")
    key = luigi.Parameter(description="sha256 of what the step depends on")
    snapshot = luigi.Parameter(significant=False, visibility=_HIDDEN, description="the inbox in which it was found")

    @property
    def steps(self) -> Steps:
        """Return the workbook's steps, as its snapshot froze them."""
        return run.steps_of(run.frozen(self.domain, self.snapshot), self.workbook)

    def output(self) -> list[luigi.LocalTarget]:
        return [luigi.LocalTarget(str(path)) for path in self.steps.targets_of(self.task_family)]

    def run(self) -> None:
        """Do the step, unless another worker has done it since Luigi looked."""
        watch.begin_step(self)  # here, and ended below: a handler of Luigi's events would swallow Ctrl-C
        if not self.complete():
            self.work()

    def work(self) -> None:
        """Do the step."""
        raise NotImplementedError

    def on_failure(self, exception: BaseException) -> str:
        line = launch.explain(exception)
        run.record_failure(self.steps, self.task_family, line, traceback.format_exc())
        watch.end_step(self, ended=True)
        return watch.for_visualiser(line)

    def on_success(self) -> None:
        run.forget_failure(self.steps, self.task_family)
        watch.end_step(self, ended=isinstance(self, Load))


class ReadExcel(WorkbookTask):
    """Read one workbook's sheet into rows, each with the row number that Excel shows."""

    def requires(self) -> DiscoverFiles:
        return DiscoverFiles(domain=self.domain, snapshot=self.snapshot)

    def work(self) -> None:
        profile = self.steps.read(self._show)
        watch.note_step(
            self,
            f"{profile['rows_read']} rows in sheet {profile['sheet']}, headings in row {profile['headings']['row']}",
            rows_read=profile["rows_read"],
            rows_skipped=profile["rows_skipped"],
        )

    def _show(self, rows: int, last_row: int | None) -> None:
        counted = f"{rows:,} rows read" + (f" of {last_row:,}" if last_row else "")
        watch.show_step(self, min(rows / last_row, 0.99) if last_row else None, counted)


class ProcessTrustee(WorkbookTask):
    """Sort one workbook's rows into accepted records and rejects."""

    def requires(self) -> ReadExcel:
        return self.clone(ReadExcel, key=self.steps.read_key)  # type: ignore[no-any-return]

    def work(self) -> None:
        outcome = self.steps.process()
        counts = {name: outcome[f"rows_{name}"] for name in ("accepted", "rejected", "duplicate")}
        message = ", ".join(f"{count} {name}" for name, count in counts.items())
        watch.note_step(self, message, **{f"rows_{name}": count for name, count in counts.items()})


class Load(WorkbookTask):
    """
    Write one workbook's plan, and when executing apply it.

    A plan is complete when it is written; a load when the warehouse's newest receipt of the workbook's place says so.
    """

    plan_only = Switch(default=True)

    def requires(self) -> list[WorkbookTask]:
        process = self.clone(ProcessTrustee, key=self.steps.process_key)
        before = None if self.plan_only else run.loaded_before(run.frozen(self.domain, self.snapshot), self.workbook)
        if before is None:
            return [process]
        return [process, self.clone(Load, workbook=before.file.path, key=before.load_key)]

    def complete(self) -> bool:
        steps = self.steps
        return steps.reviewable() if self.plan_only else run.is_loaded(steps)

    def work(self) -> None:
        steps = self.steps
        if not (steps.reviewable() if self.plan_only else steps.planned()):
            steps.plan(reviewable=self.plan_only)
        if self.plan_only:
            watch.note_step(self, f"plan {steps.plan_path}", rows_accepted=steps.outcome()["rows_accepted"])
            return
        account = run.apply(steps, self._show)
        if account["loaded"]:
            counts = {name: account[name] for name in ("deleted", "inserted")}
            watch.note_step(self, f"{counts['deleted']} deleted, {counts['inserted']} inserted", **counts)
        else:
            watch.note_step(self, "loaded before", deleted=0, inserted=0)

    def _show(self, part: float) -> None:
        watch.show_step(self, part, f"{part:.0%} of the plan has run")


class _Freezing(Register):
    """Makes tasks of a frozen inbox: it is scanned once a task, before Luigi asks for the parameters' values twice."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        task = cast("type[luigi.Task]", cls)
        values = dict(task.get_param_values(task.get_params(), args, kwargs))
        if not values["snapshot"]:
            values["snapshot"] = launch.freeze(values)
        return super().__call__(**values)


class ProcessDomain(luigi.Task, metaclass=_Freezing):
    """
    Take a domain's workbooks into its table: the plans by default, the loads with ``--plan-only false``.

    Complete when every chosen workbook's Load is; it has no target of its own that could hide one of them.
    """

    domain = luigi.Parameter(default="trustee_performance")
    mode = luigi.OptionalParameter(default=None, description="delete_insert or append")
    plan_only = Switch(default=True, description="false applies the plans")
    sheet = luigi.OptionalParameter(default=None, description="a sheet's name, or its index from 0")
    period = luigi.OptionalParameter(default=None, description="2024-11, latest or all")
    diff = luigi.BoolParameter(
        significant=False, description="ask the database what the plans would change, and keep it beside each"
    )
    snapshot = luigi.Parameter(default="", visibility=_HIDDEN, description="the inbox, frozen; computed when empty")

    @functools.cached_property
    def loads(self) -> list[Load]:
        """Return the chosen workbooks' loads."""
        snapshot = run.frozen(self.domain, self.snapshot)
        return [self._load(snapshot, file.path) for file in snapshot.chosen]

    def _load(self, snapshot: Snapshot, workbook: str) -> Load:
        key = run.steps_of(snapshot, workbook).load_key
        return Load(domain=self.domain, workbook=workbook, key=key, snapshot=self.snapshot, plan_only=self.plan_only)

    def requires(self) -> Sequence[luigi.Task]:
        return [self._receipt, *self.loads]

    @property
    def _receipt(self) -> DiscoverFiles:
        return DiscoverFiles(domain=self.domain, snapshot=self.snapshot)

    def complete(self) -> bool:
        with launch.noticed(self.domain):
            complete = run.complete(run.frozen(self.domain, self.snapshot), self.plan_only, afresh=False)
            launch.begin(self, complete)
        return all(complete) and self._receipt.complete()

    def run(self) -> None:
        launch.logger.info("%s: every workbook is %s", self.domain, "planned" if self.plan_only else "loaded")
        launch.end(self)

    def on_failure(self, exception: BaseException) -> str:
        return watch.for_visualiser(launch.explain(exception))


@ProcessDomain.event_handler(luigi.Event.DEPENDENCY_PRESENT)
def _nothing_to_do(task: ProcessDomain) -> None:
    launch.end(task)


@WorkbookTask.event_handler(luigi.Event.PROCESS_FAILURE)
def _process_died(task: WorkbookTask, message: str) -> None:
    """Record the death of a task's process, which can tell nobody itself."""
    run.record_failure(task.steps, task.task_family, f"{task.workbook}: {message}; run again", "")
    watch.end_step(task, ended=True)
