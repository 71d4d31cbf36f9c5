"""
Prints the first configuration of an instance: the shipped manual with this instance's names and folders in it.

    python scripts/first_config.py configs/station.toml --name aoi-2 --data-dir DIR --inbox DIR --beside /etc/station
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path


def with_value(text: str, value: str | int, *, section: str, key: str) -> str:
    """*text*, a TOML document, with ``[section] key`` set to *value*; its comments stay. Adds what is not there."""
    line = f"{key} = {json.dumps(value, ensure_ascii=False)}"  # a JSON string or number is a TOML one too
    head = re.search(rf"(?m)^\[{re.escape(section)}\][^\n]*\n?", text)
    if head is None:
        return f"{text.rstrip()}\n\n[{section}]\n{line}\n"
    rest = re.search(r"(?m)^\[", text[head.end() :])
    end = head.end() + rest.start() if rest else len(text)
    body, found = re.subn(
        rf"(?m)^{re.escape(key)}\s*=\s*(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s#]+)",
        lambda _: line,
        text[head.end() : end],
        count=1,
    )
    return text[: head.end()].rstrip("\n") + "\n" + (body if found else f"{line}\n{body}") + text[end:]


def value_of(text: str, *, section: str, key: str) -> str | None:
    """What ``[section] key`` is set to in *text*, without quotes. None: it is not there."""
    parts = re.split(rf"(?m)^\[{re.escape(section)}\][^\n]*$", text, maxsplit=1)
    body = re.split(r"(?m)^\[", parts[1], maxsplit=1)[0] if len(parts) == 2 else ""
    found = re.search(rf"(?m)^{re.escape(key)}\s*=\s*[\"']?([^\"'#\n]*?)[\"']?\s*(?:#.*)?$", body)
    return found[1] if found else None


def free_port(text: str, *, others: list[str]) -> int:
    """The first HTTP port from *text*'s own upwards that none of the *others* uses."""
    taken = {int(value_of(other, section="http", key="port") or 8000) for other in others}
    port = int(value_of(text, section="http", key="port") or 8000)
    while port in taken:
        port += 1
    return port


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("template", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--inbox", required=True)
    parser.add_argument("--beside", type=Path, required=True, help="the folder of the other instances' configurations")
    given = parser.parse_args()
    text = given.template.read_text(encoding="utf-8")
    others = [other.read_text(encoding="utf-8") for other in sorted(given.beside.glob("*.toml"))]
    topic = value_of(text, section="station", key="topic") or "factory/line1/aoi-1"
    port = free_port(text, others=others)
    text = with_value(text, given.name, section="station", key="name")
    text = with_value(text, "/".join([*topic.split("/")[:-1], given.name]), section="station", key="topic")
    text = with_value(text, given.data_dir, section="station", key="data_dir")
    text = with_value(text, given.inbox, section="source", key="path")
    text = with_value(text, port, section="http", key="port")
    print(text, end="")


if __name__ == "__main__":
    main()
