"""The records that a row of the table of settings consists of."""

from __future__ import annotations

from dataclasses import dataclass

from ptqbench.settings.values import ValueType

ALL_COMMANDS = ("run", "gate", "recommend", "migrate", "predict", "recipe", "list", "show-config")
"""Commands that read the settings."""
MEASURING = ("run", "gate", "recommend", "migrate", "recipe")
"""Commands that measure accuracy or latency."""
OPENING = (*MEASURING, "predict")
"""Commands that open weights and images."""


@dataclass(frozen=True)
class CommandOption:
    """An option of the command line that sets a setting.

    Attributes:
        flag: Such as ``--weights``.
        metavar: What stands for its value in the help.
        commands: Commands that take it.
        help: Its help; empty: that of the setting.
        repeatable: Whether it may be repeated, each with one value.
        group: Title of its group in the help; empty: the general options.
    """

    flag: str
    metavar: str
    commands: tuple[str, ...]
    help: str = ""
    repeatable: bool = False
    group: str = ""

    @property
    def dest(self) -> str:
        """Its attribute of the parsed arguments."""
        return self.flag.lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class PytestOption:
    """An option of pytest that sets a setting.

    Attributes:
        flag: Such as ``--ptqbench-weights``.
        metavar: What stands for its value in the help.
        help: Its help; empty: that of the setting.
        listed: Whether it takes names with commas between and may be repeated.
    """

    flag: str
    metavar: str
    help: str = ""
    listed: bool = False

    @property
    def dest(self) -> str:
        """Its name among pytest's options."""
        return self.flag.lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Setting:
    """A setting: one row of the table.

    Attributes:
        key: Dotted name, as in a file.
        type: Type of its value.
        help: What it means, without the default.
        default: Value if it is not set.
        unset: What None, the default, stands for.
        per_model: Whether a model's table may set it too.
        needs_trust: Whether it can run code or write files, so that a file of somebody else
            may not set it.
        commands: Options of the command line.
        pytest: Option of pytest.
    """

    key: str
    type: ValueType
    help: str
    default: object = None
    unset: str = ""
    per_model: bool = True
    needs_trust: bool = False
    commands: tuple[CommandOption, ...] = ()
    pytest: PytestOption | None = None

    @property
    def default_text(self) -> str:
        """The default, for help and documents; empty if there is none to speak of."""
        if self.unset or self.default in (None, ()):
            return self.unset
        return str(self.default)

    @property
    def full_help(self) -> str:
        """The help with the default."""
        return f"{self.help}; default: {self.default_text}" if self.default_text else self.help

    def option(self, command: str) -> CommandOption | None:
        """Return the option of a command that sets this setting, if it has one."""
        return next((each for each in self.commands if command in each.commands), None)
