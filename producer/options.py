"""Options: those that several commands take, with one name and one meaning."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Route = Annotated[str | None, typer.Option(help="The route whose rules decide.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="Use this model; several are tried in order.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Also retry what failed before.")]
Window = Annotated[int, typer.Option(min=1, help="Requests in flight at a time.")]
Processes = Annotated[int, typer.Option(min=1, help="Workers per model of a private yard.")]
Timeout = Annotated[float | None, typer.Option(min=0, help="Wait no longer than this.")]
QualityFloor = Annotated[
    float | None, typer.Option(min=0, max=1, help="Only models that are expected to be so good.")
]
MaxCost = Annotated[
    float | None, typer.Option(help="Only models of which one call is expected to cost no more.")
]
MaxLatency = Annotated[
    float | None, typer.Option(help="Only models of which one call is expected to take no longer.")
]
Region = Annotated[str | None, typer.Option(help="Only models that run there.")]
DataClass = Annotated[str | None, typer.Option(help="Only models that may see such data.")]
DeadlineS = Annotated[float | None, typer.Option(help="Worthless after so many seconds.")]
