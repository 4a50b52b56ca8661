"""Notices of what failed, by Luigi's own e-mail, into a real mail server of the test."""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from job import NAME, Job, workbook
from watching import free_port

ROW = [2024, 11, "P1", "600001", 0.055, 1.05, 12000000.5]
SECRET = "s3cret-w0rd"
NOWHERE = f"postgresql://user:{SECRET}@127.0.0.1:1/nowhere"


class Mailbox:
    """A mail server's only mailbox."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.raw: list[bytes] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # aiosmtpd's name
        self.raw.append(envelope.content)
        self.mails.append(email.message_from_bytes(envelope.content, _class=EmailMessage, policy=email.policy.default))
        return "250 OK"


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[tuple[Mailbox, int]]:
    """Run a mail server on loopback."""
    box, port = Mailbox(), free_port()
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    yield box, port
    server.stop()


@pytest.fixture
def job(tmp_path: Path, mailbox: tuple[Mailbox, int]) -> Job:
    """Make a good workbook, and Luigi's configuration of docs/deploy.md."""
    job = Job(tmp_path)
    workbook(job.inbox / f"甲_{NAME}", [ROW])
    (tmp_path / "luigi.cfg").write_text(
        "[email]\nreceiver = ops@example.com\nsender = wdh@example.com\n"
        f"[smtp]\nhost = 127.0.0.1\nport = {mailbox[1]}\n"
    )
    return job


def parts(mail: EmailMessage) -> tuple[str, str]:
    """Return a mail's subject and text."""
    (text,) = [part for part in mail.walk() if part.get_content_type().startswith("text/")]
    assert isinstance(text, EmailMessage)
    return str(mail["Subject"]), str(text.get_content())


def check_no_secret(box: Mailbox) -> None:
    for mail in box.mails:
        assert "Traceback" not in "".join(parts(mail))
        assert SECRET not in "".join(parts(mail))


@pytest.mark.parametrize("command", ["luigi --module wdh_luigi ProcessDomain", "wdh run"])
def test_one_notice_a_run_says_what_failed_and_why(job: Job, mailbox: tuple[Mailbox, int], command: str) -> None:
    """Thirty failures are one mail, which says in plain words what to mend and what to run again."""
    box, _ = mailbox
    for name in ("乙", "丙"):
        workbook(job.inbox / f"{name}_{NAME}", [["张三", "010-1234"]], ["姓名", "电话"])
    done = job.wdh("run", "--workers", "2") if command == "wdh run" else job.run("--workers", "2")
    assert done.returncode == 30
    assert "Warning" not in done.stderr
    (mail,) = box.mails
    assert (mail["To"], mail["From"]) == ("ops@example.com", "wdh@example.com")
    subject, text = parts(mail)
    failed = [file["error"] for file in job.summary()["files"] if file["status"] == "failed"]
    assert len(failed) == 2
    assert subject.startswith(
        f"wdh_luigi: trustee_performance: 2 of 3 workbooks failed: 丙_{NAME}, sheet 业绩: no heading"
    )
    assert text.splitlines()[:2] == failed
    assert f"summary: {job.work / 'trustee_performance/summary.json'}" in text
    assert f"again, when it is mended: {command} --domain trustee_performance" in text
    check_no_secret(box)


def test_a_run_that_is_refused_is_noticed(job: Job, mailbox: tuple[Mailbox, int]) -> None:
    """A database that is away at night is what somebody must know in the morning, and its password nobody."""
    box, _ = mailbox
    assert job.run("--plan-only", "false", WDH_DATABASE_URI=NOWHERE).returncode == 40
    (mail,) = box.mails
    subject, text = parts(mail)
    assert subject.startswith(
        "wdh_luigi: trustee_performance was not run: database nowhere on 127.0.0.1:1: cannot connect"
    )
    assert text.startswith("database nowhere on 127.0.0.1:1: cannot connect")
    check_no_secret(box)
    assert SECRET.encode() not in b"".join(box.raw)


def test_a_command_that_finds_no_luigid_is_noticed(job: Job, mailbox: tuple[Mailbox, int]) -> None:
    """Also what is refused before the inbox is looked at is told once."""
    done = job.wdh("run", "--scheduler-url", "http://127.0.0.1:1", WDH_LOG_FORMAT="json")
    assert done.returncode == 40
    (line, *_) = [json.loads(line) for line in done.stderr.splitlines() if '"ERROR"' in line]
    assert line["message"] == f"error: {parts(mailbox[0].mails[0])[1].splitlines()[0]}"
    assert len(mailbox[0].mails) == 1


def test_a_run_that_ends_well_or_is_not_begun_is_no_news(job: Job, mailbox: tuple[Mailbox, int]) -> None:
    """Who gets a mail every night reads none."""
    assert job.run().returncode == 0
    assert job.run().returncode == 0
    assert mailbox[0].mails == []


def test_a_mail_as_html_shows_names_as_they_are(job: Job, mailbox: tuple[Mailbox, int]) -> None:
    """A file name is no markup."""
    text = (job.folder / "luigi.cfg").read_text().replace("[email]\n", "[email]\nformat = html\n")
    (job.folder / "luigi.cfg").write_text(text)
    workbook(job.inbox / f"<b>_{NAME}", [["张三", "010-1234"]], ["姓名", "电话"])
    assert job.run().returncode == 30
    (mail,) = mailbox[0].mails
    assert f"&lt;b&gt;_{NAME}, sheet 业绩: no heading row" in parts(mail)[1]


@pytest.mark.parametrize(
    ("port", "says"),
    [
        ("1", "ERROR: Not able to connect to smtp server: [Errno 111] Connection refused"),
        ("none", "parsing the default value of 'port'; see [email] and [smtp] in luigi.cfg"),
    ],
)
def test_a_mail_that_cannot_be_sent_changes_nothing(job: Job, port: str, says: str) -> None:
    """The run is what counts: its exit code, its summary."""
    text = (job.folder / "luigi.cfg").read_text()
    (job.folder / "luigi.cfg").write_text(text.partition("port = ")[0] + f"port = {port}\n")
    workbook(job.inbox / f"乙_{NAME}", [["张三", "010-1234"]], ["姓名", "电话"])
    done = job.run()
    assert done.returncode == 30
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert [file["status"] for file in job.summary()["files"]] == ["failed", "done"]
