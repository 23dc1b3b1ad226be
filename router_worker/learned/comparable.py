"""Which rows two models can be compared on: those that have scores of both."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from modelyard.errors import ModelyardError
from router_worker.learned.rows import PairRow, ScoresRow

QualityRow = PairRow | ScoresRow


def comparable(
    rows: Sequence[QualityRow], pair: tuple[str, str] | None = None
) -> tuple[list[QualityRow], list[QualityRow]]:
    """Return the rows that models are compared on, and others to learn from.

    Rows of a ledger have a score of the one model that answered, most of them. Where no two models
    are in all rows, those of `pair` count, or of the two models that most rows have in common. What
    is asked in one of them is in none of the others. Raises `ModelyardError` where there are none.
    """
    models = [models_in(row) for row in rows]
    if rows and len(frozenset.intersection(*models)) > 1:
        return list(rows), []
    if pair is None:
        shared = Counter(two for names in models for two in combinations(sorted(names), 2))
        if not shared:
            raise ModelyardError(
                "no row has scores of two models, so there is nothing to compare: let a shadow "
                "answer as well, and grade its answers too (modelyard feedback --model)"
            )
        pair = min(shared, key=lambda two: (-shared[two], two))
    both = [names.issuperset(pair) for names in models]
    kept = [row for row, is_kept in zip(rows, both, strict=True) if is_kept]
    if not kept:
        raise ModelyardError(f"no row has scores of both {pair[0]} and {pair[1]}")
    asked = {row.prompt for row in kept}
    others = [
        row
        for row, is_kept in zip(rows, both, strict=True)
        if not is_kept and row.prompt not in asked
    ]
    return kept, others


def models_in(row: QualityRow) -> frozenset[str]:
    """Return the models that a row has scores of."""
    return frozenset(row.scores) if isinstance(row, ScoresRow) else frozenset({"weak", "strong"})
