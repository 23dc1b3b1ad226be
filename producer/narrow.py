"""Tables as wide as the terminal: no name is broken in the middle, as nobody could copy it then."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE: int = 10_000


@dataclass(frozen=True, slots=True)
class Column:
    """A column and how it yields: `folds` at spaces where there is no room, or not at all."""

    name: str
    folds: bool = False
    right: bool = False


def show_rows(out: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, or a paragraph for each row where a table does not fit the terminal.

    The first column heads its paragraph. Cells are plain text, no markup.
    """
    for tight in (False, True):
        table = table_of(columns, rows, tight=tight)
        if out.measure(table, options=out.options.update(max_width=WIDE)).minimum <= out.width:
            out.print(table)
            return
    for row in rows:
        out.print(paragraph(columns, row, out.width), markup=False, highlight=False, soft_wrap=True)


def table_of(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, tight: bool) -> Table:
    """Return the table, whose columns are no narrower than their words."""
    table = Table(box=box.SIMPLE, pad_edge=False, collapse_padding=tight)
    for number, column in enumerate(columns):
        cells = [column.name, *(row[number] for row in rows)]
        words = [word for cell in cells for word in (cell.split() if column.folds else [cell])]
        table.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=not column.folds,
            overflow="fold",
            min_width=max(map(cell_len, words)),
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def paragraph(columns: Sequence[Column], row: Sequence[str], width: int) -> str:
    """Return a row as lines of `width`, or as long as one word is."""
    head, *cells = row
    told = [
        f"{column.name} {cell}" for column, cell in zip(columns[1:], cells, strict=True) if cell
    ]
    return "\n".join(
        [
            head,
            *textwrap.wrap(
                ", ".join(told),
                max(width, 20),
                initial_indent="  ",
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            ),
        ]
    )
