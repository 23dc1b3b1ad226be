"""The command for feedback: `modelyard feedback`."""

from typing import Annotated

import typer

from modelyard.feedback import give_feedback
from producer.broker import broker
from producer.display import plain, print_json
from producer.options import AsJson


def feedback(
    id: Annotated[str, typer.Argument(help="The id that submit printed.")],
    score: Annotated[float, typer.Option(help="What its answer is worth, from 0 to 1.")],
    comment: Annotated[str | None, typer.Option(help="Why.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Whose answer it is about, if not the one that was given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what an answer is worth. Experiments go by it, and what is learned."""
    with broker() as client:
        answer = give_feedback(client, id, score, comment, model)
    graded = answer.model if model is None else model
    if as_json:
        print_json({"id": id, "model": graded, "score": score})
    else:
        plain(f"request {id}: {score:g} for {graded}")
