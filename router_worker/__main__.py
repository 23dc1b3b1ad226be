"""`python -m router_worker [explain|replay NAME...|experiments|check]`: what the router says, as
JSON.

Nothing is called. `explain`, which is meant if nothing is said, reads a request and writes the
decision; `replay` reads requests, one a line, and writes what would be decided about each, with the
experiments of these names taken back; `experiments` writes how those of the catalog go; `check`
what is wrong with the learned models that the catalog names.

Exit code 1 and `{"error": ...}` when the request can't be routed, 3 when the broker can't be read.
"""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import redis

from modelyard.address import broker_address
from modelyard.catalog import Catalog
from modelyard.catalog_file import default_catalog
from modelyard.connect import connect
from modelyard.errors import ModelyardError
from modelyard.redis_errors import broker_error
from modelyard.settings import load_settings
from router_worker.again import decide_again
from router_worker.experiments.report import report
from router_worker.forward import Refused, forward
from router_worker.knowledge import Knowledge
from router_worker.now import escalated_to, informed, read_all
from router_worker.oracles.shelf import Shelf

logger = logging.getLogger("modelyard.router")

STDOUT: Final = sys.stdout
SHORT_S: Final = 2.0
"""What is explained is not worth a long wait."""
SILENT_S: Final = 10.0
"""A Redis that says nothing for so long is not there."""


def main() -> int:
    """Do what the first argument says."""
    name = sys.argv[1] if len(sys.argv) > 1 else "explain"
    if name not in COMMANDS:
        sys.stderr.write(f"{name!r} is none of {', '.join(COMMANDS)}\n")
        return 2
    # A function that makes embeddings may print, and what is asked for here is JSON.
    with contextlib.redirect_stdout(sys.stderr):
        return COMMANDS[name]()


def explain() -> int:
    """Decide about the request on standard input."""
    try:
        request, (catalog, knowledge) = json.load(sys.stdin), known()
        now, escalated = time.time(), None
        with broker() as client:
            if client is not None:
                knowledge = informed(knowledge, catalog, request, client, now)
                escalated = escalated_to(request, client)
        outcome = forward(
            "explained", request, catalog, now, knowledge=knowledge, escalated=escalated
        )
    except (ModelyardError, ValueError) as error:
        return end({"error": str(error)}, 1)
    if isinstance(outcome, Refused):
        return end({"error": outcome.letter.message, "reason": outcome.letter.reason.value}, 1)
    return end(outcome.call.decision.model_dump(mode="json"), 0)


def replay() -> int:
    """Decide about each request on standard input, as `again.decide_again` has it.

    What calls take and how long answers are is as it is known now.
    """
    catalog, knowledge = known()
    with broker() as client:
        if client is not None:
            knowledge = knowledge.having(read_all(catalog, client).seen())
    knowledge = replace(knowledge, taken_back=frozenset(sys.argv[2:]))
    for decided in decide_again(sys.stdin, catalog, knowledge):
        end(decided, 0)
    return 0


def check() -> int:
    """Say in words what is wrong with the learned models; routing would do without them."""
    settings = load_settings()
    shelf = Shelf(settings.catalog_path.parent, default_catalog(settings))
    logging.disable(logging.WARNING)  # it is said once
    return end({"warnings": shelf.complaints()}, 0)


def known() -> tuple[Catalog, Knowledge]:
    """Return the catalog, and the learned models that it names. Raises `ModelyardError`."""
    settings = load_settings()
    catalog = default_catalog(settings)
    return catalog, Shelf(settings.catalog_path.parent, catalog).knowledge()


@contextlib.contextmanager
def broker() -> Iterator[redis.Redis | None]:
    """Yield a connection to the yard's Redis; None where it has no address.

    What fails in it is logged, and it is gone on without. Raises `ModelyardError` if the address is
    none.
    """
    settings = load_settings()
    if settings.broker_url is None:
        yield None
        return
    url = broker_address(None, settings)
    try:
        with connect(url, socket_timeout=SHORT_S, socket_connect_timeout=SHORT_S) as client:
            yield client
    except (redis.RedisError, OSError) as error:
        unknown = "how experiments stand is not known, nor what was seen and spent"
        logger.warning("%s: %s", unknown, broker_error(error))


def experiments() -> int:
    """Say how experiments go, as `report.report` has it."""
    settings = load_settings()
    catalog = default_catalog(settings)
    url = broker_address(None, settings)
    with connect(url, socket_timeout=SILENT_S, socket_connect_timeout=SILENT_S) as client:
        try:
            progress = read_all(catalog, client)
        except (redis.RedisError, OSError) as error:
            return end({"error": str(broker_error(error))}, 3)
    return end(report(catalog, progress, time.time()), 0)


def end(result: object, code: int) -> int:
    """Print the result as one line of JSON and return the exit code."""
    json.dump(result, STDOUT, ensure_ascii=False)
    STDOUT.write("\n")
    return code


COMMANDS: Final[dict[str, Callable[[], int]]] = {
    "explain": explain,
    "replay": replay,
    "experiments": experiments,
    "check": check,
}

if __name__ == "__main__":
    raise SystemExit(main())
