"""Prints requirements/LICENCES.md: the packages that a station runs on, as they are locked, and their licences."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements" / "run.lock"
HEAD = """# What a station runs on

The packages of `run.lock`, each pinned with its checksums; pip installs nothing else (`--require-hashes`).
`scripts/dependencies.py` prints this list; `tests/security/test_dependencies.py` holds it to the lock.
For holes that are known in them, where the internet can be asked:
`pip install pip-audit && pip-audit --require-hashes -r requirements/run.lock`.

| package | version | licence |
|---|---|---|"""


def locked(text: str) -> list[tuple[str, str, str]]:
    """(package, version, marker) of each entry of a lock."""
    return [
        (found[1], found[2], (found[3] or "").strip())
        for found in re.finditer(r"^([a-z0-9._-]+)==(\S+)(?: *; ([^\\\n]+))?", text, re.MULTILINE)
    ]


def licence_of(package: str) -> str:
    """As its own metadata has it: the expression, else the classifiers, else the text's first line."""
    try:
        said = metadata(package)
    except PackageNotFoundError:
        return "not installed here"
    classifiers = [one.rpartition(" :: ")[2] for one in said.get_all("Classifier", []) if one.startswith("License ::")]
    expressions = said.get_all("License-Expression", [])
    text = next(iter("\n".join(said.get_all("License", [])).strip().splitlines()), "")
    return next(iter(expressions), "") or ", ".join(one for one in classifiers if one != "OSI Approved") or text


def table() -> str:
    rows = [
        f"| {name} | {version}{f' ({marker})' if marker else ''} | {licence_of(name)} |"
        for name, version, marker in locked(LOCK.read_text())
    ]
    return "\n".join([HEAD, *rows]) + "\n"


if __name__ == "__main__":
    print(table(), end="")
