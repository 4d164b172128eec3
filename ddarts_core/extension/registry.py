"""A plug-in registers new entries in the tables of operations, spaces, methods, parts and data sets.

Torch-free: tables that hold modules or images are imported only when an entry is put into them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .. import methods
from ..genotypes.spaces import OPERATION_NAMES, SPACES
from ..ground.errors import UserError, with_article
from ..ground.table import Table
from ..ground.validation import NAME, PATTERNS
from ..methods.method import Method
from ..methods.parts import Part
from ..settings import config
from ..settings.data_settings import DATA_SETS

if TYPE_CHECKING:
    from ..data.sets import Entry
    from ..networks.operations import Factory


class _Removable(Protocol):
    def remove(self, name: str, /) -> None: ...


class Registry:
    """The object that a plug-in's function `register` is given. Each of its methods adds one entry, or refuses it.

    Args:
        plugin: the name of the plug-in, for messages.

    Attributes:
        names: the names of the entries that were added, by kind: `operation`, `space`, `method`, `data set`, the kind
            of a part, such as `rule`, or the kind of another table, such as `searcher`.

    Example:
        >>> registry = Registry("mine")
        >>> registry.space("S_short", ("skip_connect", "sep_conv_3x3"))
        >>> registry.names
        {'space': ['S_short']}
        >>> registry.remove_all()
    """

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.names: dict[str, list[str]] = {}
        self._added: list[tuple[str, _Removable]] = []

    def operation(self, name: str, factory: Factory) -> None:
        """Add an operation.

        Args:
            name: the name that the operation has in genotypes and spaces.
            factory: a function (channels, stride, affine) that makes a module. The module maps
                [batch, channels, height, width] to the same number of channels, and at stride 2 to half the height and
                width, rounded up. `affine` says whether normalisations have weights of their own: in a search they have
                none.

        Raises:
            UserError: the name is taken, or the factory does not take these three arguments.
        """
        from ..networks.operations import OPERATIONS, checked

        self._check_name("operation", name)
        try:
            inspect.signature(factory).bind(8, 1, True)
        except (TypeError, ValueError):
            raise UserError(
                f"operation {name!r}: give a function (channels, stride, affine) that makes a module, not {factory!r}"
            ) from None
        OPERATIONS.add(name, checked(name, factory))
        OPERATION_NAMES.add(name)
        self._note("operation", name, OPERATIONS, OPERATION_NAMES)

    def space(self, name: str, operations: Sequence[str]) -> None:
        """Add a search space, which `search.space` can then choose.

        Args:
            name: the name of the space.
            operations: the names of its operations, in the order of the last axis of the alphas. `none` may be one of
                them, but not the only one.

        Raises:
            UserError: the name is taken, or an operation is unknown or named twice.
        """
        self._check_name("space", name)
        known = {*OPERATION_NAMES, "none"}
        if isinstance(operations, str) or not isinstance(operations, Collection) or not operations:
            raise UserError(f"space {name!r}: give a list of names of operations, not {operations!r}")
        for operation in operations:
            if operation not in known:
                raise UserError(
                    f"space {name!r} names an unknown operation {operation!r}: register it first, or choose one of "
                    f"{', '.join(sorted(known))}"
                )
        if len(set(operations)) != len(operations):
            raise UserError(f"space {name!r} names an operation twice: {', '.join(operations)}")
        if set(operations) == {"none"}:
            raise UserError(f"space {name!r} has no operation but none: nothing could be chosen from it")
        SPACES.add(name, tuple(operations))
        self._note("space", name, SPACES)

    def method(self, name: str, method: Method) -> None:
        """Add a method, which the setting `method` can then choose, and the parts that the method brings.

        Raises:
            UserError: a name is taken, or the method's settings are not valid.
        """
        self._check_name("method", name)
        if not isinstance(method, Method):
            raise UserError(f"method {name!r}: give a ddarts.plugins.Method, not {method!r}")
        for part in method.parts:
            self.part(part)
        methods.METHODS.add(name, method)
        self._note("method", name, methods.METHODS)
        try:
            config.resolve({"method": name}, where=f"method {name!r}")
        except UserError as error:
            raise UserError(str(error)) from error

    def part(self, part: type[Part]) -> None:
        """Add a part of a method, or a rule of discretisation: a subclass of a base in `ddarts_core.methods.parts`.

        Raises:
            UserError: the name of the part is taken, its name or its summary is missing, or it is no such class.
        """
        kinds = {base.__name__: base for base in methods.TABLES}
        if not (isinstance(part, type) and issubclass(part, tuple(methods.TABLES))):
            raise UserError(f"part {part!r}: give a subclass of one of {', '.join(kinds)}")
        lacking = [key for key in ("name", "summary") if not isinstance(getattr(part, key, None), str)]
        if lacking:
            raise UserError(f"part {part.__name__} has no {lacking[0]}: give it one, as text")
        self._check_name("part", part.name)
        table = methods.add_part(part)
        kind = next(name for name, base in kinds.items() if issubclass(part, base))
        self._note(kind.lower(), part.name, table)

    def data_set(self, entry: Entry) -> None:
        """Add a data set, which `data.name` can then choose.

        Args:
            entry: a `Published`, an `OwnImages`, or an object with the same attributes and methods.

        Raises:
            UserError: the name is taken, or the entry lacks an attribute or a method.
        """
        from ..data.sets import DATASETS

        wanted = ("name", "files", "policy", "facts", "images", "notes", "listing")
        lacking = [key for key in wanted if not hasattr(entry, key)]
        if lacking:
            raise UserError(
                f"data set {entry!r} has no {lacking[0]}: give a Published or an OwnImages of ddarts.plugins, or "
                "what has the same attributes and methods"
            )
        name = entry.name
        self._check_name("data set", name)
        DATASETS.add(name, entry)
        DATA_SETS.append(name)
        self._note("data set", name, DATASETS, DATA_SETS)

    def add(self, table: Table[Any], name: str, entry: object) -> None:
        """Add an entry to a table of a package above, such as `SEARCHERS` of `ddarts_tuning.settings.searchers`.

        Args:
            table: the table.
            name: the name of the entry.
            entry: an object of the same class as an entry that the table has already.

        Raises:
            UserError: the name is taken, or the entry is of another class.
        """
        self._check_name(table.kind, name)
        kinds = {type(known) for known in table.values()}
        if type(entry) not in kinds:
            names = " or ".join(sorted(kind.__name__ for kind in kinds))
            raise UserError(f"{table.kind} {name!r}: give a {names}, not {entry!r}")
        table.add(name, entry)
        self._note(table.kind, name, table)

    def remove_all(self) -> None:
        """Remove all entries that were added from the tables again."""
        while self._added:
            name, table = self._added.pop()
            table.remove(name)
        self.names = {}

    def _note(self, kind: str, name: str, *tables: _Removable) -> None:
        self.names.setdefault(kind, []).append(name)
        self._added += [(name, table) for table in tables]

    def _check_name(self, kind: str, name: object) -> None:
        if not isinstance(name, str) or not re.match(NAME, name):
            raise UserError(f"the name {name!r} of {with_article(kind)} {PATTERNS[NAME]}")
