"""Which works do the numbers come from? Reads ``sources.bib`` (plain BibTeX: ``@type{key, field = {value}, ...}``)."""

from __future__ import annotations

import re

_ENTRY = re.compile(r"@(\w+)\s*\{\s*([^,\s]+)\s*,")
_FIELD = re.compile(r"(\w+)\s*=\s*")


def _braced(text: str, start: int) -> int:
    """Index after the brace that closes the one at ``start`` (or the end of the text)."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    return len(text)


def _fields(body: str) -> dict[str, str]:
    found: dict[str, str] = {}
    position = 0
    while match := _FIELD.search(body, position):
        start = match.end()
        if start < len(body) and body[start] == "{":
            position = _braced(body, start)
            value = body[start + 1 : position - 1]
        else:
            end = body.find(",", start)
            position = end if end >= 0 else len(body)
            value = body[start:position].strip().strip('"')
        found[match.group(1).lower()] = " ".join(value.replace("{", "").replace("}", "").split())
    return found


def read_bib(text: str, file: str = "sources.bib") -> tuple[dict[str, dict[str, str]], list[str]]:
    """Entries by key, each a dict of plain strings with ``type``, and a list of problems (duplicate keys, entries without title).

    >>> read_bib("@misc{a, title = {An {A} title}, year = 2020}")
    ({'a': {'type': 'misc', 'title': 'An A title', 'year': '2020'}}, [])
    """
    entries: dict[str, dict[str, str]] = {}
    problems: list[str] = []
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("%"))
    for match in _ENTRY.finditer(text):
        key = match.group(2)
        end = _braced(text, text.index("{", match.start()))
        entry = {"type": match.group(1).lower(), **_fields(text[match.end() : end - 1])}
        if key in entries:
            problems.append(f"{file}: {key} — found twice, allowed one entry a key")
        if not entry.get("title"):
            problems.append(f"{file}: {key} — found no title, allowed an entry with a title")
        entries[key] = entry
    return entries, problems
