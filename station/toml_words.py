"""What is wrong in a TOML file, in an operator's words, with the line and what to write instead. Pure."""

from __future__ import annotations

import re

_AT = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)")
_SECRET = re.compile(r"password|secret|token|://[^/\s]*@", re.IGNORECASE)
_KEY = r"\s*[\w.-]+\s*=\s*"
_TEXT = re.compile(r"\s*(?P<key>[\w.-]+)\s*=\s*(?P<text>[^\s\"'\[{#\d+.-][^#]*)(#.*)?")
_ODD_QUOTES = "\u201c\u201d\u201e\u2018\u2019`"  # what word processors make of quotes

# What is told, by a pattern of the line and one of what the reader said; the first that fits.
_HINTS = (
    (r"\[[^\]]*", r"", "a section is written [NAME]"),
    (r".*", r"twice", "this section stands twice: put its keys together"),
    (r".*", r"overwrite", "this key, or its section, stands twice: keep one of them"),
    (r'.*"[^"]*\\.*', r"", "a backslash needs single quotes, as in 'C:\\data', or is written twice"),
    (r'[^"]*"[^"]*', r"", "the closing quote is missing"),
    (rf"{_KEY}True\s*(#.*)?", r"", "write true in small letters"),
    (rf"{_KEY}False\s*(#.*)?", r"", "write false in small letters"),
    (rf"{_KEY}(#.*)?", r"", "a value is missing after ="),
    (rf"{_KEY}\d+,\d+\s*(#.*)?", r"", "a number is written with a point, as in 0.5"),
    (r".*", r"Expected '='", "a key and its value are written KEY = VALUE, and text in quotes"),
)


def explain_toml(text: str, error: ValueError) -> str:
    """``line 2: host=broker: text needs quotes, as in host = "broker"``, of what a TOML reader said of *text*."""
    found = _AT.search(str(error))
    lines = text.splitlines() or [""]
    number = int(found["line"]) if found and found["line"] else len(lines)
    while number > 1 and not lines[number - 1].strip():
        number -= 1  # where the reader noticed it is behind what is wrong
    line = lines[number - 1].strip()
    shown = f"{line.partition('=')[0].strip()} = ..." if _SECRET.search(line) else line
    return f"line {number}: {shown}: {_hint(line, _AT.sub('', str(error)))}"


def _hint(line: str, said: str) -> str:
    for of_line, of_said, hint in _HINTS:
        if re.fullmatch(of_line, line) and re.search(of_said, said):
            return hint
    bare = _TEXT.fullmatch(line)
    if bare is None:
        return said
    text = "..." if _SECRET.search(line) else bare["text"].strip().strip(_ODD_QUOTES)
    quote = "'" if "\\" in text else '"'
    return f"text needs quotes, as in {bare['key']} = {quote}{text}{quote}"
