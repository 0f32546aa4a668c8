"""The tables of a page as a reader meets them: by caption, row by row."""

from __future__ import annotations

from html.parser import HTMLParser


class PageTables(HTMLParser):
    """Caption -> rows of cell texts, the headings first; a cell's lines are joined by `|`."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self._caption: str | None = None
        self._rows: list[list[str]] = []
        self._in_cell = False
        self.feed(source)

    def rows(self, caption_end: str) -> list[list[str]]:
        """The rows of the one table whose caption ends so, without the headings."""
        return self._one(caption_end)[1:]

    def headings(self, caption_end: str) -> list[str]:
        """Its headings."""
        return self._one(caption_end)[0]

    def row(self, caption_end: str, *starts: str) -> list[str]:
        """The one row whose first cells start so."""
        rows = [
            row
            for row in self.rows(caption_end)
            if all(cell.startswith(start) for cell, start in zip(row, starts, strict=False))
        ]
        assert len(rows) == 1, (starts, [row[:2] for row in rows])
        return rows[0]

    def _one(self, caption_end: str) -> list[list[str]]:
        captions = [caption for caption in self.found if caption.endswith(caption_end)]
        assert len(captions) == 1, (caption_end, list(self.found))
        return self.found[captions[0]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._rows = []
        elif tag == "caption":
            self._caption = ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
            self._in_cell = True
        elif tag == "small" and self._in_cell:
            self._rows[-1][-1] += "|"

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self._rows[-1][-1] += data.replace("\u00a0", " ")
        elif self._caption is not None:
            self._caption += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._in_cell = False
        elif tag == "caption":
            self._rows_of = self._caption or ""
            self._caption = None
        elif tag == "table":
            assert self._rows_of not in self.found, "every table needs a name of its own"
            self.found[self._rows_of] = self._rows
