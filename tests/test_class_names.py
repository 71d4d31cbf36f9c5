"""The names in a data.yaml: as they are written, and never guessed."""

from __future__ import annotations

import json

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

from station.class_names import class_names

OURS = 'path: .\ntrain: images\nval: images\nnames:\n  0: "copper"\n  1: "pin-hole"\n'


@pytest.mark.parametrize(
    "text",
    [
        OURS,
        "names:\n  0: copper\n  1: pin-hole\n",
        "names:  # two\n- copper\n\n# a comment\n- pin-hole   # the small ones\nnc: 2\n",
        "names:\n    - 'copper'\n    - \"pin-hole\"",
        "train: ../train/images\n\nnc: 2\nnames: ['copper', 'pin-hole']\n\nroboflow:\n  version: 1\n",
        "names: [copper,\n  pin-hole, ]  # two\nnc: 2\n",
        '"names" :\r\n 1: pin-hole\r\n 0: copper\r\nkpt_names:\r\n 0: [a]\r\n',
        "---\nnames:\n  0: copper\n  1: pin-hole\n...\n",
    ],
)
def test_names_are_read_in_each_form_that_people_and_programs_write(text: str) -> None:
    assert class_names(text) == {0: "copper", 1: "pin-hole"}
    told = next(iter(yaml.safe_load_all(text)))["names"]
    assert class_names(text) == (told if isinstance(told, dict) else dict(enumerate(told)))


@pytest.mark.parametrize(
    "name", ["a b", "it's", "Zinn-Brücke", 'a "b" \\c', "a: b", "# no", "#1", "[x]", "a, b", "a#b", "a:b"]
)
def test_a_name_is_what_a_yaml_reader_takes_it_for(name: str) -> None:
    dumped = yaml.safe_dump({"path": ".", "names": {0: name, 3: "x"}}, allow_unicode=True)
    listed = yaml.safe_dump({"names": [name, "x"]}, allow_unicode=True)
    flowing = f"names: [{json.dumps(name)}, x]\n"
    assert class_names(dumped) == {0: name, 3: "x"}
    assert class_names(listed) == class_names(flowing) == {0: name, 1: "x"}
    assert class_names(f"names:\n  0: {json.dumps(name)}\n") == {0: name}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nc: 2\n",
        "names:\n",
        "names: []\n",
        "names: 6\n",
        "names: {0: a, 1: b}\n",
        "names: &x [a]\n",
        "names: [a, [b]]\n",
        "names: [a\n",
        "names: [a, b] c\n",
        "names: [a # no, b]\n",
        "names: [a: b]\n",
        'names: ["a\\x41"]\n',
        "names:\n  0: a\n  0: b\n",
        "names:\n  0: a\nnames:\n  0: b\n",
        "names:\n  0: a\n    b\n",
        "names:\n  0: a\n  - b\n",
        "names:\n  0: a: b\n",
        "names:\n  0: |\n    a\n",
        "names:\n  0: *a\n",
        "names:\n  0:\n  1: b\n",
        "names:\n  a: 0\n",
        "names:\n\t0: a\n",
        "names:\n- a\n  - b\n",
        "names:\n  '0': a\n",
        'names:\n  0: "a" b\n',
        "names:\n  0: 'a\n",
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"names|line \d+|escape"):
        class_names(text)
