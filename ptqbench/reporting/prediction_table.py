"""The predictions of both precisions for one image, side by side."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ptqbench.evaluation.result import Prediction
from ptqbench.reporting.format import percent, source_name


def prediction_view(prediction: Prediction, image: str) -> RenderableType:
    """Show the most likely classes, float32 next to int8.

    Args:
        prediction: Of both precisions.
        image: Name of the image.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", justify="right")
    for precision in ("float32", "int8"):
        table.add_column(precision, overflow="fold")
        table.add_column("%", justify="right", no_wrap=True)
    for rank, (first, second) in enumerate(
        zip(prediction.float32, prediction.int8, strict=True), start=1
    ):
        same = first[0] == second[0]
        table.add_row(
            str(rank),
            Text(first[0]),
            percent(first[1]),
            Text(second[0], style="" if same else "yellow"),
            percent(second[1]),
            style="bold" if rank == 1 else "",
        )
    title = Text()
    title.append(image, style="bold")
    title.append(
        f" · {prediction.model}, weights {source_name(prediction.weights)}, on {prediction.backend}"
    )
    notes = [Text(note, style="dim") for note in prediction.notes]
    return Group(title, Text(), table, Text(), _agreement(prediction), *notes)


def _agreement(prediction: Prediction) -> Text:
    if not prediction.float32 or not prediction.int8:
        return Text("There are no classes to compare.", style="yellow")
    first, second = prediction.float32[0][0], prediction.int8[0][0]
    if first == second:
        return Text(f"Both say {first}.")
    return Text(f"They differ: float32 says {first}, int8 says {second}.", style="yellow")
