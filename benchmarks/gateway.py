"""The whole pipeline beside LiteLLM's proxy, which keeps nothing: a call there is an HTTP call.

python -m benchmarks litellm [--requests N] [--rounds N] [--no-install]
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks import comparison
from benchmarks.comparison import LEAST, Amount, compare
from benchmarks.environment import Environment, NoEnvironment
from benchmarks.litellm_proxy import ENVIRONMENT, litellm_proxy
from benchmarks.load import at_once
from benchmarks.system import System, running
from benchmarks.yard import OURS

TIMES_FASTER: Final = 10.0
TWO: Final = 2


def run(
    amount: Amount, *, install: bool = True, environment: Environment = ENVIRONMENT
) -> dict[str, Any]:
    """Measure both; return it as plain JSON values.

    Raises `NoEnvironment` if LiteLLM is not installed and can't, or must not, be.
    """
    if install:
        environment.make()
    elif not environment.ready:
        raise NoEnvironment(f"{environment.folder.name} is not there, and must not be made")
    with tempfile.TemporaryDirectory(prefix="litellm-") as name:
        folder = Path(name)
        result = compare("litellm", OURS, litellm_proxy(folder, environment=environment), amount)
        result["litellm"] = environment.version("litellm")
        two = litellm_proxy(folder, workers=TWO, environment=environment)
        result["two_workers"] = rate_of(two, amount)
    return result


def rate_of(system: System, amount: Amount) -> dict[str, Any]:
    """Return what a system does at once, in one go."""
    with running(system, warm_up=amount.warm_up) as run:
        return at_once(run, max(LEAST, min(amount.requests, 10 * amount.warm_up)))


def table(result: Mapping[str, Any]) -> str:
    """Return the result as Markdown."""
    two = result["two_workers"]
    return "\n\n".join(
        (
            f"LiteLLM {result['litellm']}, one worker process.",
            comparison.wanted(result, TIMES_FASTER),
            comparison.table(result),
            f"With two worker processes LiteLLM's proxy made {two['requests_per_s']:.0f} "
            f"requests/s at {two['cpu_ms']['proxy']:.3g} ms of CPU a request, measured once.",
        )
    )
