"""luigid as a user starts it, and what its visualiser shows of a run, in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import watching
from job import NAME, Job, workbook
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from watching import Luigid

ROW = [2024, 11, "P1", "600001", 0.055, 1.05, 12000000.5]
BAD, GOOD = f"乙_{NAME}", f"甲_{NAME}"
SECRET = "s3cret-w0rd"

# Without them Chromium asks hosts of its maker at every start.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--window-size=1280,1000",
]


@pytest.fixture
def visualiser(tmp_path: Path) -> Iterator[Luigid]:
    """Run a luigid for the test."""
    with watching.running(tmp_path / "luigid") as one:
        yield one


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    """Make two workbooks, of which the database takes only one: P2 is not to be in the table."""
    job = Job(tmp_path, f"{database}&password={SECRET}")
    workbook(job.inbox / GOOD, [ROW])
    job.load()
    workbook(job.inbox / BAD, [[2024, 11, "P2", *ROW[3:]]])
    job.execute("ALTER TABLE trustee_performance ADD CONSTRAINT no_p2 CHECK (plan_code <> 'P2')")
    return job


def run(job: Job, visualiser: Luigid, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Load, with luigid for a scheduler."""
    command = [word for word in job.command("--plan-only", "false", *arguments) if word != "--local-scheduler"]
    command += ["--scheduler-url", visualiser.url]
    return job.do(command)


def say(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``wdh luigid``."""
    command, environment = watching.wdh(*arguments, folder=folder)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_luigid_is_started_once_for_this_machine_alone(visualiser: Luigid, tmp_path: Path) -> None:
    """It has no authentication, and two of them would each know half of what goes on."""
    (listening,) = psutil.Process(visualiser.process.pid).net_connections()
    assert (listening.status, listening.laddr.ip) == ("LISTEN", "127.0.0.1")
    port = visualiser.url.rpartition(":")[2]
    again = say("start", "--port", str(watching.free_port()), folder=visualiser.folder)
    assert again.returncode == 1
    assert again.stderr == f"error: luigid: is up already: {visualiser.url}; stop it first, with wdh luigid stop\n"
    other = say("start", "--port", port, folder=tmp_path / "other")
    assert other.returncode == 1
    what = "cannot be listened on (Address already in use); choose another with --port"
    assert other.stderr == f"error: port {port} of 127.0.0.1: {what}\n"
    assert say("stop", folder=visualiser.folder).stdout == f"luigid stopped in {visualiser.folder}\n"
    assert visualiser.process.wait(timeout=30) == 0
    assert say("stop", folder=visualiser.folder).stdout == f"luigid was not up in {visualiser.folder}\n"


def test_luigid_knows_its_tasks_after_a_restart(job: Job, visualiser: Luigid) -> None:
    """What was seen before a reboot is seen after it; the metrics begin anew, as Prometheus expects it."""
    assert run(job, visualiser).returncode == 30
    before = {(task["name"], task["params"].get("workbook"), task["status"]) for task in tasks(visualiser)}
    assert ("Load", BAD, "FAILED") in before
    assert 'luigi_task_failed_total{family="Load"} 1.0' in visualiser.get("/metrics")
    os.kill(visualiser.process.pid, signal.SIGTERM)
    assert visualiser.process.wait(timeout=30) == 0
    with watching.running(visualiser.folder) as one:
        assert {(task["name"], task["params"].get("workbook"), task["status"]) for task in tasks(one)} == before


def unfolded(text: str) -> str:
    """Return a text whatever lines it was broken into to be read without scrolling."""
    return "".join(text.split())


def tasks(visualiser: Luigid) -> list[dict[str, object]]:
    return list(visualiser.ask("task_list", status="", upstream_status="").values())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_tasks_say_what_they_did_and_why_one_failed(job: Job, visualiser: Luigid, workers: str) -> None:
    """Who watches sees workbook, period and counts; a failure in one line, without traceback and secret."""
    assert run(job, visualiser, "--workers", workers).returncode == 30
    said = {(task["name"], task["params"].get("workbook")): task for task in tasks(visualiser)}
    read, process = said["ReadExcel", BAD], said["ProcessTrustee", BAD]
    assert read["status_message"] == f"{BAD} (2024-11)\n1 rows in sheet 业绩, headings in row 1"
    assert process["status_message"] == f"{BAD} (2024-11)\n1 accepted, 0 rejected, 0 duplicate"
    assert (read["progress_percentage"], read["status"]) == (100, "DONE")
    assert "snapshot" not in read["params"]
    (failed,) = visualiser.ask("task_list", status="FAILED", upstream_status="")
    shown = visualiser.ask("fetch_error", task_id=failed)
    (error,) = [file["error"] for file in job.summary()["files"] if file["status"] == "failed"]
    assert unfolded(json.loads(shown["error"])) == unfolded(error)
    assert 'violates check constraint "no_p2"' in error
    everything = json.dumps([tasks(visualiser), shown, visualiser.ask("worker_list")])
    assert "Traceback" not in everything
    assert SECRET not in everything


@pytest.fixture
def browser(scratch: Path) -> Iterator[webdriver.Chrome]:
    """Yield a headless Chromium; whatever it writes, and whatever it starts, ends with the test."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not chromium:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    home = Path(tempfile.mkdtemp(dir=scratch))  # its sockets need a short path
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS, f"--user-data-dir={home / 'profile'}"]:
        options.add_argument(flag)
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home)}
    service = Service(driver, env=environment, popen_kw={"start_new_session": True})
    try:
        one = webdriver.Chrome(options, service)
        yield one
        one.quit()
    finally:
        if service.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(service.process.pid, signal.SIGKILL)


def numbers(browser: webdriver.Chrome, url: str) -> dict[str, str]:
    """Open the visualiser's list of tasks; return its counts by status, once it has them."""
    browser.get("about:blank")
    browser.get(f"{url}/static/visualiser/index.html")
    statuses = ("PENDING", "RUNNING", "DONE", "FAILED", "UPSTREAM_FAILED", "DISABLED", "UPSTREAM_DISABLED")
    boxes = {one: browser.find_element(By.CSS_SELECTOR, f"#{one}_info .info-box-number") for one in statuses}
    WebDriverWait(browser, 30).until(lambda _: "?" not in [box.text for box in boxes.values()])
    return {status: box.text for status, box in boxes.items() if box.text != "0"}


def test_the_visualiser_shows_a_failure_and_that_it_is_mended(
    job: Job, visualiser: Luigid, browser: webdriver.Chrome
) -> None:
    """What a person does: open the page, find what is red, read why, mend it, run again, and see all green."""
    assert run(job, visualiser).returncode == 30
    assert numbers(browser, visualiser.url) == {"DONE": "4", "FAILED": "1", "UPSTREAM_FAILED": "1"}
    rows = browser.find_elements(By.CSS_SELECTOR, "#taskTable tbody tr")
    (row,) = [row for row in rows if row.text.startswith("FAILED")]
    assert "Load" in row.text
    assert BAD in row.text
    row.find_element(By.CSS_SELECTOR, ".showError").click()
    message = browser.find_element(By.CSS_SELECTOR, "#errorModal pre")
    WebDriverWait(browser, 30).until(lambda _: message.is_displayed())
    (error,) = [file["error"] for file in job.summary()["files"] if file["status"] == "failed"]
    assert unfolded(message.text) == unfolded(error)
    assert browser.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth", message)
    job.execute("ALTER TABLE trustee_performance DROP CONSTRAINT no_p2")
    assert run(job, visualiser).returncode == 0
    assert numbers(browser, visualiser.url) == {"DONE": "6"}
