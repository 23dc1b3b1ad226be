"""`python -m router_worker`: reads a request as JSON, writes the decision, and calls nothing.

Exit code 1 and `{"error": ...}` when the request can't be routed.
"""

import json
import sys
import time

from modelyard.catalog_file import default_catalog
from modelyard.errors import ModelyardError
from router_worker.forward import Refused, forward


def main() -> int:
    """Decide about the request on standard input."""
    try:
        outcome = forward("explained", json.load(sys.stdin), default_catalog(), time.time())
    except (ModelyardError, ValueError) as error:
        return end({"error": str(error)}, 1)
    if isinstance(outcome, Refused):
        return end({"error": outcome.letter.message, "reason": outcome.letter.reason.value}, 1)
    return end(outcome.call.decision.model_dump(mode="json"), 0)


def end(result: dict[str, object], code: int) -> int:
    """Print the result as one line of JSON and return the exit code."""
    json.dump(result, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
