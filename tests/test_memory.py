"""What the daemon does without, to stay small."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from station.memory import leave_out_rich
leave_out_rich()
import station.app
print("rich" in sys.modules, "pygments" in sys.modules, "structlog" in sys.modules)
import rich.console
print(rich.console.Console.__name__)
"""


def test_the_daemon_does_without_rich_and_who_wants_it_still_gets_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False False True", "Console"]
