"""What adds an extra: the right pip, the right packages, and never another project of our name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from station.extras import how_to_add

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("extra", ["ultralytics", "quantize", "openvino", "redis", "genicam", "modbus"])
def test_each_extra_is_added_by_the_names_of_its_packages(extra: str) -> None:
    said = how_to_add(extra)
    assert said.startswith(f"{sys.prefix}/bin/pip install ")
    names = [re.match(r"'?([a-z0-9-]+)", one)[1] for one in said.partition(" install ")[2].split()]  # type: ignore[index]  # each has one
    assert sorted(names) == sorted(re.match(r"[a-z0-9-]+", one)[0] for one in EXTRAS[extra])  # type: ignore[index]  # ditto


def test_nobody_is_told_to_install_the_stranger_that_has_our_name_on_pypi() -> None:
    texts = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("station/**/*.py"), *ROOT.glob("configs/*.toml")]
    told = [one.name for one in texts if re.search(r"pip install ['\"]?station\b", one.read_text(encoding="utf-8"))]
    assert told == ["extras.py"], "which says why not"


def test_the_documents_name_the_packages_of_each_extra() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("### Extras") :]
    for extra in ("openvino", "modbus", "genicam", "redis", "quantize", "ultralytics"):
        for package in EXTRAS[extra]:
            name = re.match(r"[a-z0-9-]+", package)
            assert name is not None
            assert re.search(rf"\| `{extra}` \|[^|]*`[^`|]*\b{name[0]}\b", table), (extra, name[0])
