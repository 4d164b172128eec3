"""`make test-oldest` installs the oldest versions that setup.cfg admits."""

from __future__ import annotations

import configparser
import re

from packaging.requirements import Requirement
from packaging.version import Version

from tests.oldest import CONSTRAINTS, ROOT


def test_the_constraints_are_the_lower_bounds_of_what_is_required() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = [Requirement(line) for line in setup["options"]["install_requires"].split()]
    bounds = {each.name: Version(str(each.specifier).removeprefix(">=")) for each in required}
    pins = {name: Version(pin) for name, pin in re.findall(r"^([\w-]+)==(\S+)$", CONSTRAINTS.read_text(), re.M)}
    assert len(bounds) > 10 and bounds == {name: pins.get(name) for name in bounds}
