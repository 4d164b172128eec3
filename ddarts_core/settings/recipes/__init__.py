"""Training recipes as YAML files beside this module: `quick`, `cifar`, `imagenet-darts`, `imagenet-pcdarts`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted(Path(__file__).parent.glob("*.yaml"))
    }
)
