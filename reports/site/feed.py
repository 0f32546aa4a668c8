"""An Atom feed (RFC 4287) of the newest results."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

from reports.site.files.links import record_page
from reports.site.pages.record_tables import name_of, trust_word
from reports.site.records.site_record import SiteRecord
from reports.wording import counted, decimal, interval, pattern_name, visible

PATH = "feed.xml"
ENTRIES = 50

_ATOM = "http://www.w3.org/2005/Atom"
_NAMES = uuid.UUID("5f2b6b0e-6a5c-5d0f-9e0a-3a1f6f0b7c11")
"""UUID name space of the ids, which are the same wherever a site is published."""


def feed(records: Sequence[SiteRecord], *, title: str, url: str | None) -> str:
    """Writes the feed as an XML document.

    Args:
        records: newest first; failed records and those that are not ranked are left out.
        title: title of the site.
        url: address of the published site, with a final slash; if None, links are relative to the feed.
    """
    newest = [held for held in records if held.is_ranked][:ENTRIES]
    # An empty feed has no time of its own, but must be the same if built twice.
    updated = max((held.created for held in newest), default=datetime.fromtimestamp(0, UTC))
    ElementTree.register_namespace("", _ATOM)
    root = ElementTree.Element(_tag("feed"))
    _text(root, "id", _urn(url or f"site {title}"))
    _text(root, "title", title)
    _text(root, "updated", _time(updated))
    _text(root, "generator", "prunebench")
    _text(ElementTree.SubElement(root, _tag("author")), "name", title)
    base = url or ""
    ElementTree.SubElement(root, _tag("link"), {"rel": "alternate", "href": f"{base}index.html"})
    ElementTree.SubElement(root, _tag("link"), {"rel": "self", "href": f"{base}{PATH}"})
    for held in newest:
        _entry(root, held, base)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _entry(root: ElementTree.Element, held: SiteRecord, base: str) -> None:
    cell = held.record.cell
    entry = ElementTree.SubElement(root, _tag("entry"))
    _text(entry, "id", _urn(held.digest))
    _text(entry, "title", f"{cell.model}: {name_of(held)}, {pattern_name(cell.pattern)}")
    _text(entry, "updated", _time(held.created))
    link = {"rel": "alternate", "type": "text/html", "href": f"{base}{record_page(held.digest)}"}
    ElementTree.SubElement(entry, _tag("link"), link)
    _text(entry, "summary", _summary(held))


def _summary(held: SiteRecord) -> str:
    parts = []
    for metric in held.record.metrics:
        if metric.name != "perplexity" or metric.value is None:
            continue
        spread = interval(metric.low, metric.high)
        note = f" (95 % interval {spread})" if spread else ""
        n = f", n = {counted(metric.n, 'window')}" if metric.n is not None else ""
        parts.append(f"perplexity {decimal(metric.value)}{note} on {metric.protocol}{n}, lower is better")
    return f"{'; '.join(parts) or 'no perplexity'}. Trust: {trust_word(held)}."


def _tag(name: str) -> str:
    return f"{{{_ATOM}}}{name}"


def _text(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, _tag(name)).text = _allowed(visible(text))


def _allowed(text: str) -> str:
    """Escapes the two characters that are neither control characters nor allowed in XML."""
    return text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def _urn(name: str) -> str:
    return uuid.uuid5(_NAMES, name.encode("utf-8", "backslashreplace").decode()).urn


def _time(moment: datetime) -> str:
    # `strftime` omits leading zeros of years before 1000.
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
