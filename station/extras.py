"""How to add what a plain install leaves out: by this environment's own pip, and by the packages' own names."""

from __future__ import annotations

import re
import shlex
import sys


def how_to_add(extra: str) -> str:
    """
    The command that adds *extra*, one of pyproject.toml's.

    Never ``pip install station[...]``: on PyPI that name is another project's, and pip takes it for ours wherever ours
    is not installed.
    """
    from importlib import metadata  # 40 ms of a start, for a message that few ever see

    try:
        known = metadata.requires("station") or []
    except metadata.PackageNotFoundError:
        known = []
    pattern = re.compile(rf"""(.*?)\s*;.*extra == ['"]{re.escape(extra)}['"]""")
    wanted = [found[1] for one in known if (found := pattern.fullmatch(one)) is not None]
    return f"{sys.prefix}/bin/pip install {shlex.join(wanted or [extra])}"
