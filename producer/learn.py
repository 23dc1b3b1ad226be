"""The commands that learn and measure: `modelyard train` and `modelyard evaluate`.

The router is a program of its own: it reads the data, trains, and says what came of it.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from modelyard.asked import asked
from modelyard.decision_ledger import Entry
from modelyard.errors import ModelyardError
from modelyard.messages import Request
from producer.display import err
from producer.exit_codes import WRONG
from producer.ledger import entries
from producer.moments import Since
from producer.options import AsJson
from producer.output import UsageError

LEAST_SCORES: Final = 50
"""The router learns nothing of a model from fewer."""

Data = Annotated[
    list[Path] | None,
    typer.Argument(metavar="DATA.jsonl", help="Rows of examples; several files are put together."),
]
Embeddings = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Embeddings beside the words: the folder of a static model, or module:function.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The same rows and seed give the same model.")]


def train(
    data: Data = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The model's folder. Required.")
    ] = None,
    from_ledger: Annotated[
        bool, typer.Option("--from-ledger", help="Learn from feedback in the decision ledger.")
    ] = False,
    since: Since = None,
    embeddings: Embeddings = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train what the router decides by, from your own examples.

    Rows {"text", "intent"} make an intent classifier, rows {"prompt", "weak", "strong"} or
    {"prompt", "scores": {MODEL: SCORE}} a predictor of each model's quality. A folder that has a
    model keeps its other part, and a running router takes the new one without a restart.
    """
    if output is None:
        raise UsageError("say where the model goes: -o MODEL/")
    if not data and not from_ledger:
        raise UsageError("give files of rows, or --from-ledger")
    files = list(data or [])
    with tempfile.TemporaryDirectory() as folder:
        if from_ledger:
            files.append(ledger_rows(since, Path(folder) / "ledger.jsonl"))
        given = [*map(str, files), "--output", str(output), "--seed", str(seed)]
        if embeddings is not None:
            given += ["--embeddings", embeddings]
        run("train", given, as_json)


def evaluate(
    data: Data = None,
    model: Annotated[
        str | None, typer.Option(help="A model's folder, or builtin; else: cross-validation.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw it into this file (.png, .svg, .pdf).")
    ] = None,
    weak: Annotated[str | None, typer.Option(help="Of several models, the cheap one ...")] = None,
    strong: Annotated[
        str | None, typer.Option(help="... and the good one; else the worst and the best.")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=COST", help="What a call costs: compares all models."),
    ] = None,
    embeddings: Embeddings = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a model on rows of examples, beside the baselines that it has to beat.

    Without --model, each row is judged by a model that was trained on other rows; rows of the
    built-in classifier's own intents are judged by that.
    """
    if not data:
        raise UsageError("give at least one file of rows")
    given = [*map(str, data), "--seed", str(seed)]
    for name, value in (
        *(("model", model), ("plot", plot), ("embeddings", embeddings)),
        *(("weak", weak), ("strong", strong)),
    ):
        if value is not None:
            given += [f"--{name}", str(value)]
    for each in price or []:
        given += ["--price", each]
    run("evaluate", given, as_json)


def run(command: str, arguments: Sequence[str], as_json: bool) -> None:
    """Run the router's own program; what it prints is what we print."""
    finished = subprocess.run(  # noqa: S603 - our own program
        [
            *(sys.executable, "-m", "router_worker.learned", command),
            *arguments,
            *(["--json"] if as_json else []),
        ],
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if finished.returncode not in {0, WRONG}:
        raise ModelyardError(f"the router failed with exit code {finished.returncode}")
    raise typer.Exit(finished.returncode)


def ledger_rows(since: str | None, path: Path) -> Path:
    """Write what the ledger teaches about models to a file of rows, and return its path.

    Raises `UsageError` if that is nothing.
    """
    with entries(since, None, None) as found:
        rows, rare = frequent(list(lessons(found)))
    for model, count in rare.items():
        err.print(
            f"{model} is left out: {count} scores, and {LEAST_SCORES} are needed",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if rare and not rows:
        raise UsageError(f"no model has {LEAST_SCORES} scores in the ledger yet")
    if not rows:
        raise UsageError(
            "the ledger has no feedback on requests whose text was kept: set "
            "MODELYARD_LEDGER_TEXT=true for the workers, and send feedback (modelyard feedback)"
        )
    err.print(f"{len(rows):,} prompts with feedback in the ledger", highlight=False)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lessons(found: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    """Yield a row for each request whose text was kept and whose answer got a score.

    The last feedback of an answer counts, and a judge's score where there is none.
    """
    prompts: dict[str, str] = {}
    scores: dict[str, dict[str, float]] = {}
    for entry in found:
        # A shadow's and a member's entry have the id of their request, too.
        if entry.request is not None and entry.id not in prompts:
            with contextlib.suppress(ValidationError):  # of another version: it teaches nothing
                prompts[entry.id] = asked(Request.decode(entry.request).messages)
        # An answer that several models are part of (a+b) is no model's own.
        if entry.score is not None and entry.model and "+" not in entry.model:
            scores.setdefault(entry.id, {})[entry.model] = entry.score
    for id, prompt in prompts.items():
        if scores.get(id):
            yield {"prompt": prompt, "scores": scores[id]}


def frequent(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the rows without models of which too little is known, and their numbers of scores.

    One feedback on a model that is hardly used must not keep the others from being learned.
    """
    counts = Counter(model for row in rows for model in row["scores"])
    rare = {model: count for model, count in counts.items() if count < LEAST_SCORES}
    kept = []
    for row in rows:
        scores = {model: score for model, score in row["scores"].items() if model not in rare}
        if scores:
            kept.append({**row, "scores": scores})
    return kept, rare
