"""A table of targets by record name, which is joined to intervals."""

from __future__ import annotations

import numpy as np

from ....core.errors import UserError
from ..interval_table import IntervalTable
from ..tables import column_place, table_rows
from ..target_columns import TargetReader


class TargetsTable:
    """Targets of named records, from a TSV or CSV file with a header and a column ``name``.

    Args:
        path: the file.
        targets: reads the target columns; None where the one column is a class, kept as text.
        column: that column.

    Raises:
        UserError: with file and line: a missing column, a row with another number of columns, a name twice, an empty
            class, or what ``targets`` finds wrong.
    """

    def __init__(self, path: str, targets: TargetReader | None, column: str) -> None:
        self.path = path
        self._rows: dict[str, int] = {}
        labels: list[str] = []
        with table_rows(path) as rows:
            header: list[str] = next(rows, [])
            wanted = ["name", *(targets.columns if targets is not None else [column])]
            name_at, *places = (column_place(header, name, path, "label_column") for name in wanted)
            for row in rows:
                where = f"{path}:{rows.line_num}"
                if not row:
                    continue
                if len(row) != len(header):
                    raise UserError(f"{where}: {len(row)} column(s), the header has {len(header)}; correct the row")
                if row[name_at] in self._rows:
                    raise UserError(f"{where}: name {row[name_at]!r} occurs twice; keep one of the rows")
                self._rows[row[name_at]] = len(self._rows)
                if targets is not None:
                    targets.add([row[place] for place in places], where)
                    continue
                if not row[places[0]]:
                    raise UserError(f"{where}: the class is empty; fill in column {column!r} or remove the row")
                labels.append(row[places[0]])
        if not self._rows:
            raise UserError(f"{path}: has a header but no row; is it the right file?")
        self._labels = np.array(labels, dtype=object) if targets is None else None
        self._targets = None if targets is None else targets.finish(path)
        self.names = None if targets is None else targets.names

    def columns_for(self, table: IntervalTable) -> dict[str, object]:
        """Return the fields ``labels``, ``targets`` and ``target_names`` of intervals, found by their names.

        Raises:
            UserError: an interval whose name is not in the table.
        """
        found = np.array([self._rows.get(str(name), -1) for name in table.names])
        if (found < 0).any():
            first = int(np.argmin(found))
            raise UserError(
                f"{table.where(first)}: {str(table.names[first])!r} (column 4) has no row in {self.path}; add it or "
                f"remove the interval"
            )
        return {
            "labels": None if self._labels is None else self._labels[found],
            "targets": None if self._targets is None else self._targets[found],
            "target_names": self.names,
        }
