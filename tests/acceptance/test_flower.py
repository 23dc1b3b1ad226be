"""Flower, as an operator sees it: in a real browser, on real workers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import redis
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from waiting import eventually
from workers import Workers, workers

from modelyard import Client, Handle, Request, RequestFailed
from modelyard.embedded_redis import EmbeddedRedis, unused_port
from modelyard.names import REQUESTS_QUEUE, ROUTE_TASK, in_lane, model_queue, route_event_id
from modelyard.settings import config_dir
from modelyard.testing import Gate, Reply
from producer.commands import flower_command

CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",  # CI runs as root, whom Chromium's sandbox refuses
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1700,1000",
)

PROMPT = "Summarize: the amber ledger of the northern yard"
ANSWER = "A ledger was kept in cobalt ink"
CALL_S = 0.3
CONCURRENCY = 2
WAITING = 3

Row = dict[str, str]


@dataclass(frozen=True)
class Watched:
    """What Flower shows: its address, and the ids of what went through the yard.

    Two calls of `large` are held, so `WAITING` more requests stay in its queue.
    """

    flower: str
    answered: str
    failed_over: str
    dead: str
    held: tuple[str, ...]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium, with nothing of any earlier run. None here: skipped at a desk, a failure in CI."""
    missing = [str(path) for path in (CHROMIUM, CHROMEDRIVER) if not path.exists()]
    if missing:
        why = f"no {' and no '.join(missing)} (Debian's packages chromium and chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(f"CI must have a browser: {why}", pytrace=False)
        pytest.skip(why)
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    # With its path given, Selenium looks for no driver and downloads none.
    driver = webdriver.Chrome(options, Service(str(CHROMEDRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def watched(
    browser: webdriver.Chrome,
    redis_server: EmbeddedRedis,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    """A yard after some work: an answer, a failover and a dead letter, and calls that run."""
    with redis.Redis.from_url(redis_server.url) as store:
        store.flushall()
    gate = Gate()
    with workers(tmp_path_factory.mktemp("yard"), redis_server.url) as yard:
        yard.start_router()
        yard.start_pool("small")
        yard.start_pool("large", "-c", str(CONCURRENCY))
        with flower(yard) as address, yard.client() as client:
            yard.fake.script("provider-small", [Reply(delay_s=CALL_S, text=ANSWER)])
            answered = client.submit(PROMPT)
            assert answered.result(30).text == ANSWER

            dead = fail_over(yard, client, Reply(status=503), Reply(status=503))
            with pytest.raises(RequestFailed):
                dead.result(30)

            # The last for `small`: a denied call opens its breaker, and nothing is retried there.
            failed_over = fail_over(yard, client, Reply(status=401), Reply(text="ok"))
            assert failed_over.result(30).model == "large"

            yard.fake.reset()
            yard.fake.always("*", Reply(gate=gate))
            to_large = Request.of("hello", models=["large"])
            held = client.submit_many([to_large] * (CONCURRENCY + WAITING))
            yard.fake.wait_until(lambda fake: fake.in_flight == CONCURRENCY)
            ids = tuple(handle.id for handle in held)
            try:
                yield Watched(address, answered.id, failed_over.id, dead.id, ids)
            finally:
                gate.open()


@contextmanager
def flower(yard: Workers) -> Iterator[str]:
    """Run Flower as `modelyard up` does, and give its address once it knows all workers."""
    port = unused_port()
    log_path = yard.folder / "flower.log"
    command = flower_command(port, config=config_dir() / "flowerconfig.py", python=sys.executable)
    with log_path.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=yard.env, cwd=yard.folder)
    try:
        address = f"http://127.0.0.1:{port}"

        def knows_all() -> bool:
            known = fetch(f"{address}/workers?json=1")
            return all(f'"{node}@' in known for node in ("router", "small", "large"))

        eventually(knows_all, timeout_s=60, message=f"Flower knows the workers ({log_path})")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def fail_over(yard: Workers, client: Client, small: Reply, large: Reply) -> Handle:
    """Submit a request that `small` and then `large` reply to."""
    yard.fake.always("provider-small", small)
    yard.fake.always("large", large)
    return client.submit("hello")


def fetch(address: str) -> str:
    """A page of Flower, without a browser; nothing while Flower starts."""
    parts = urlsplit(address)
    connection = HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        return connection.getresponse().read().decode()
    except (OSError, HTTPException):
        return ""
    finally:
        connection.close()


def rows(browser: webdriver.Chrome, table: str) -> list[Row]:
    """The rows of a table on the page, by its headings (lower-case); none while it is drawn."""
    script = """
    const table = document.getElementById(arguments[0]);
    if (!table) return [];
    const heads = [...table.querySelectorAll('thead th')].map(
      cell => cell.textContent.trim().toLowerCase());
    return [...table.querySelectorAll('tbody tr')].map(row => Object.fromEntries(
      [...row.cells].map((cell, index) => [heads[index], cell.innerText.trim()])));
    """
    found: list[Row] = browser.execute_script(script, table)
    return found


def page_text(browser: webdriver.Chrome) -> str:
    """All that the page says; nothing while it is being drawn."""
    try:
        return browser.find_element(By.TAG_NAME, "body").text
    except (NoSuchElementException, StaleElementReferenceException):
        return ""


def details(browser: webdriver.Chrome, watched: Watched, uuid: str) -> Row:
    """The page of one task, as its terms and what is said about them."""
    browser.get(f"{watched.flower}/task/{quote(uuid)}")
    script = """
    return Object.fromEntries([...document.querySelectorAll('dl .detail-row')].map(row =>
      [row.querySelector('dt').innerText.trim().toLowerCase(),
       (row.querySelector('dd code, dd pre, dd a:not([title]), dd span') ?? row.querySelector('dd'))
         .textContent.trim()]));
    """
    found: Row = browser.execute_script(script)
    return found


def milliseconds(runtime: str) -> float:
    """A duration as Flower writes it, such as `4.40 ms` or `1.2 s`."""
    number, unit = runtime.split()
    return float(number) * {"ms": 1.0, "s": 1000.0}[unit]


def task_rows(browser: webdriver.Chrome, watched: Watched) -> dict[str, Row]:
    """The rows of the tasks page by id, once Flower has heard of all that ended."""
    ended = {watched.answered, watched.failed_over, watched.dead}

    def shown() -> dict[str, Row]:
        browser.get(f"{watched.flower}/tasks")
        found = eventually(lambda: rows(browser, "tasks-table"), message="the tasks page has rows")
        by_id = {row["uuid"]: row for row in found if "state" in row}
        states = [by_id[id]["state"] for id in ended & by_id.keys()]
        done = len(states) == len(ended) and set(states) <= {"SUCCESS", "FAILURE"}
        return by_id if done else {}

    return eventually(shown, message="the tasks page lists the requests")


def test_the_workers_page_lists_all_workers_as_online(
    browser: webdriver.Chrome, watched: Watched
) -> None:
    browser.get(f"{watched.flower}/workers")

    listed = eventually(
        lambda: [row for row in rows(browser, "workers-table") if row.get("status") == "Online"],
        message="workers are online",
    )

    assert sorted(row["worker"].split("@")[0] for row in listed) == ["large", "router", "small"]


def test_the_broker_page_lists_the_queues_and_what_waits_in_them(
    browser: webdriver.Chrome, watched: Watched
) -> None:
    def counts() -> dict[str, str]:
        browser.get(f"{watched.flower}/broker")
        return {row["queue"]: row["messages"] for row in rows(browser, "queue-table")}

    expected = {
        REQUESTS_QUEUE: "0",
        model_queue("small"): "0",
        model_queue("large"): str(WAITING),
        in_lane(REQUESTS_QUEUE, batch=True): "0",
        model_queue("small", batch=True): "0",
        model_queue("large", batch=True): "0",
    }
    assert eventually(lambda: counts() == expected, message="the queues as expected"), counts()


def test_a_request_is_two_rows_the_routers_hop_and_the_models(
    browser: webdriver.Chrome, watched: Watched
) -> None:
    by_id = task_rows(browser, watched)

    route = by_id[route_event_id(watched.answered)]
    assert (route["name"], route["state"]) == (ROUTE_TASK, "SUCCESS")
    assert route["worker"].startswith("router@")
    assert 0 <= milliseconds(route["runtime"]) < 1000 * CALL_S
    call = by_id[watched.answered]
    assert (call["name"], call["state"]) == ("model.small", "SUCCESS")
    assert call["worker"].startswith("small@")
    assert milliseconds(call["runtime"]) >= 1000 * CALL_S
    assert "summarize" in call["args"]
    assert "to small then large" in call["args"]


def test_a_failover_and_a_dead_letter_can_be_told_apart(
    browser: webdriver.Chrome, watched: Watched
) -> None:
    by_id = task_rows(browser, watched)

    moved = by_id[watched.failed_over]
    assert (moved["name"], moved["state"]) == ("model.large", "SUCCESS")
    assert moved["worker"].startswith("large@")
    dead = by_id[watched.dead]
    assert (dead["name"], dead["state"]) == ("model.large", "FAILURE")
    said = details(browser, watched, watched.dead)
    assert "exhausted, 4 attempts" in said["exception"]
    assert "503" in said["exception"]


def test_the_page_of_a_request_says_who_worked_on_it_and_when(
    browser: webdriver.Chrome, watched: Watched
) -> None:
    said = details(browser, watched, watched.answered)

    assert said["uuid"] == watched.answered
    assert said["name"] == "model.small"
    assert said["status"] == "SUCCESS"
    assert said["worker"].startswith("small@")
    assert said["received"] <= said["started"] <= said["succeeded"]
    assert said["runtime"]
    # A link to the other hop.
    hop = route_event_id(watched.answered)
    browser.get(str(browser.find_element(By.PARTIAL_LINK_TEXT, hop).get_attribute("href")))
    eventually(lambda: ROUTE_TASK in page_text(browser), message="the router's hop is shown")


def test_calls_in_flight_are_shown_as_started(browser: webdriver.Chrome, watched: Watched) -> None:
    by_id = task_rows(browser, watched)

    started = [id for id in watched.held if id in by_id and by_id[id]["state"] == "STARTED"]
    assert len(started) == CONCURRENCY
    browser.get(f"{watched.flower}/workers")
    eventually(
        lambda: any(
            row.get("worker", "").startswith("large@") and row.get("active") == str(CONCURRENCY)
            for row in rows(browser, "workers-table")
        ),
        message="the pool's calls are counted as active",
    )


@pytest.mark.parametrize("page", ["tasks", "task/{id}", "task/{id}:route"])
def test_prompts_and_answers_are_not_shown(
    browser: webdriver.Chrome, watched: Watched, page: str
) -> None:
    browser.get(f"{watched.flower}/{page.format(id=watched.answered)}")

    eventually(lambda: watched.answered in page_text(browser), message="the request is shown")
    for private in ("amber ledger", "cobalt ink"):
        assert private not in browser.page_source
