"""The whole pipeline beside the same two hops in a plain Celery app.

python -m benchmarks pipeline [--requests N] [--rounds N]
"""

from collections.abc import Mapping
from typing import Any, Final

from benchmarks import comparison
from benchmarks.comparison import Amount, compare
from benchmarks.plain_celery.system import PLAIN_CELERY
from benchmarks.yard import OURS

TIMES_FASTER: Final = 5.0


def run(amount: Amount) -> dict[str, Any]:
    """Measure both; return it as plain JSON values."""
    return compare("pipeline", OURS, PLAIN_CELERY, amount)


def table(result: Mapping[str, Any]) -> str:
    """Return the result as Markdown."""
    return f"{comparison.wanted(result, TIMES_FASTER)}\n\n{comparison.table(result)}"
