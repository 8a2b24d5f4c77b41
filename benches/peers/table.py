"""The table: rows as they are measured, ratios against towpath, Markdown."""

import dataclasses

HEAD = ["figure", "who", "measured", "×", "server CPU", "×", "verified"]
NOTHING = "–"


@dataclasses.dataclass
class Row:
    """One measured thing. A ratio says how many times better towpath is in the same run."""

    figure: str
    who: str
    measured: str
    ratio: float | None = None
    cpu: str = NOTHING
    cpu_ratio: float | None = None
    verified: str = NOTHING


class Table:
    """Rows in the order of measuring. Each is told on stderr as it comes."""

    def __init__(self, tell):
        self.rows = []
        self._tell = tell

    def add(self, *cells, **named):
        row = Row(*cells, **named)
        self.rows.append(row)
        self._tell("  " + " | ".join(cell for cell in _cells(row) if cell != NOTHING))

    def markdown(self):
        """The rows; a figure's name stands only in its first one."""
        lines = [_line(HEAD), _line(["---"] * 2 + ["---:"] * 4 + ["---"])]
        last = None
        for row in self.rows:
            cells = _cells(row)
            if row.figure == last:
                cells[0] = ""
            last = row.figure
            lines.append(_line(cells))
        return "\n".join(lines)


def _cells(row):
    ratios = [NOTHING if ratio is None else f"{ratio:.2f}" for ratio in (row.ratio, row.cpu_ratio)]
    return [row.figure, row.who, row.measured, ratios[0], row.cpu, ratios[1], row.verified]


def _line(cells):
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def size(number):
    """Bytes as a person reads them."""
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= step:
            return f"{number / step:.4g} {unit}"
    return f"{number:.0f} B"
