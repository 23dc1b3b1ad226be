"""Reports as text: what `modelyard train` and `modelyard evaluate` print for people."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

WORST: Final = 12
"""So many classes and confusions are printed; `--json` has all."""


def evaluation(found: Mapping[str, Any]) -> str:
    """Return the report of an evaluation."""
    lines = [f"{found['rows']:,} rows, {found['how']}", ""]
    lines += intents(found) if found["kind"] == "intents" else quality(found)
    ms = found["decision_ms"]
    lines += ["", f"decision  p50 {ms['p50']:.3f} ms, p99 {ms['p99']:.3f} ms"]
    lines.append(f"model     {found['model_bytes'] / 1e6:.2f} MB")
    return "\n".join(lines)


def intents(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield the lines about a classifier."""
    for name, words in (
        ("accuracy", "right, of those in scope"),
        ("macro_f1", "mean F1 of the intents"),
        ("in_scope_kept_right", "in scope, not called unknown, and right"),
        ("oos_recall", "out of scope, and called unknown"),
        ("calibration_error", "between confidence and being right (0 is best)"),
    ):
        yield f"{name:20} {with_interval(found, name)}  {words}"
    for name, baseline in found["baselines"].items():
        yield f"{'baseline':20} {baseline['accuracy']:6.1%}  {name.replace('_', ' ')}"
    yield ""
    yield f"{'intent':30} {'precision':>9} {'recall':>9} {'rows':>6}"
    worst = sorted(found["classes"], key=lambda each: each["f1"])
    for each in worst[:WORST]:
        yield (
            f"{each['intent'][:30]:30} {each['precision']:9.1%} {each['recall']:9.1%} "
            f"{each['rows']:6,}"
        )
    if len(worst) > WORST:
        yield f"... and {len(worst) - WORST} more that are better (--json has all)"
    yield ""
    yield "confused most often (is -> was called)"
    labels, table = found["confusion"]["labels"], found["confusion"]["table"]
    pairs = [
        (count, labels[row], labels[column])
        for row, counts in enumerate(table)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    for count, actual, called in sorted(pairs, reverse=True)[:WORST]:
        yield f"  {count:5,}  {actual} -> {called}"
    yield ""
    yield "confidence   right   rows"
    for each in found["reliability"]:
        yield f"{each['confidence']:10.2f} {each['right']:7.2f} {each['rows']:6,}"


def quality(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield the lines about a predictor."""
    pair = found["pair"]
    yield (
        f"{pair['weak']} scores {pair['weak_score']:.3f}, "
        f"{pair['strong']} scores {pair['strong_score']:.3f} in the mean"
    )
    yield ""
    yield f"{'':10} {'APGR':>6} {'':15} {'CPT(50%)':>9} {'CPT(80%)':>9}"
    yield row("this", found, found["intervals"])
    for name, each in found["baselines"].items():
        yield row(name, each, each.get("intervals"))
    more = found["over_length"]
    low, high = more["interval"]
    verdict = "beats" if low > 0 else "does not surely beat"
    yield f"it {verdict} prompt length: {more['apgr']:+.3f} APGR ({low:+.3f} to {high:+.3f})"
    if "models" in found:
        models = found["models"]
        saved, gained = models["saved_at_equal_quality"], models["gained_at_equal_cost"]
        yield ""
        yield f"beside always {models['best_single']} ({models['best_single_score']:.3f}):"
        yield f"  at equal quality {span(saved, '.1%')} cheaper"
        yield f"  at equal cost    {span(gained, '+.3f')} better"


def row(name: str, values: Mapping[str, Any], intervals: Mapping[str, Any] | None) -> str:
    """Return one line of the table of curves."""
    low, high = intervals["apgr"] if intervals else (None, None)
    between = f"({low:.3f} to {high:.3f})" if low is not None else ""
    shares = f"{values['cpt50']:8.1%} {values['cpt80']:9.1%}"
    return f"{name:10} {values['apgr']:6.3f} {between:16} {shares}"


def with_interval(found: Mapping[str, Any], name: str) -> str:
    """Return a share with its interval."""
    if found[name] is None:
        return f"{'none such rows':24}"
    low, high = found["intervals"][name]
    return f"{found[name]:6.1%} ({low:6.1%} to {high:6.1%})"


def span(measure: Mapping[str, Any], form: str) -> str:
    """Return a measure with its interval, in a format."""
    low, high = measure["interval"]
    return f"{measure['value']:{form}} ({low:{form}} to {high:{form}})"


def training(told: Mapping[str, Any]) -> str:
    """Return what came of training."""
    lines = [f"{told['model']}: {told['model_bytes'] / 1e6:.2f} MB"]
    if "intents" in told:
        about = told["intents"]
        low, high = about["accuracy_interval"]
        lines.append(
            f"intents  {about['intents']} from {about['rows']:,} rows; cross-validated: "
            f"{about['accuracy']:.1%} right ({low:.1%} to {high:.1%}), "
            f"{about['in_scope_kept_right']:.1%} kept and right"
            + (
                ""
                if about["oos_recall"] is None
                else f", {about['oos_recall']:.1%} of those out of scope found"
            )
        )
    if "quality" in told:
        about = told["quality"]
        lines.append(f"quality  of {', '.join(about['models'])} from {about['rows']:,} rows")
        lines.append("         modelyard evaluate says what it is worth")
    return "\n".join(lines)
