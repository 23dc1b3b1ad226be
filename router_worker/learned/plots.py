"""Reports as pictures: reliability of a classifier, or a predictor's cost-quality curve."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.errors import ModelyardError


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Draw a report into a file; its ending tells the format (.png, .svg, .pdf).

    Raises `ModelyardError` without matplotlib, for a format that it does not know, and if the file
    can't be written.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ModelyardError("plots need matplotlib: pip install modelyard[plot]") from error
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="random")
    if found["kind"] == "intents":
        bins = found["reliability"]
        axes.plot(
            [each["confidence"] for each in bins], [each["right"] for each in bins], marker="o"
        )
        axes.set_xlabel("confidence")
        axes.set_ylabel("right")
        axes.set_title(f"accuracy {found['accuracy']:.1%} on {found['rows']:,} rows")
    else:
        curve, pair = found["curve"], found["pair"]
        axes.plot(curve["strong_calls"], curve["recovered"], marker=".", label="this router")
        for share, recovered in ((found["cpt50"], 0.5), (found["cpt80"], 0.8)):
            axes.plot([share, share], [0, recovered], color="grey", linewidth=0.7)
            axes.annotate(f"CPT({recovered:.0%}) {share:.0%}", (share, recovered), fontsize=8)
        axes.set_xlabel(f"share of calls to {pair['strong']}")
        axes.set_ylabel("recovered of the gap")
        axes.set_title(f"APGR {found['apgr']:.3f} on {found['rows']:,} rows")
        axes.legend()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ModelyardError(f"{path}: the plot can't be written: {error}") from error
