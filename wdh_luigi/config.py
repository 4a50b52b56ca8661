"""Settings from the environment and domains from data_sources.yml, validated as a whole before anything runs."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from wdh_luigi.errors import ConfigError

EMBEDDED = "embedded"

# A URI as libpq takes it apart, with what makes the parts sure: an @ or / left in a password would move what follows
# into the host, port or database, which messages name.
_HOST = r"(?:\[[^][@/?]*\]|[^][@/?:,]*)(?::\d*)?"
_URI = re.compile(rf"postgres(?:ql)?://(?:[^@/?]*@)?{_HOST}(?:,{_HOST})*(?:/[^@/?]*)?(?:\?.*)?")

Mode = Literal["delete_insert", "append"]
Select = Literal["latest_by_year_month", "latest_by_year_month_and_version", "latest_by_mtime"]
RateUnit = Literal["auto", "ratio", "percent"]
Reader = Literal["auto", "openpyxl"]
LogFormat = Literal["text", "json"]


class Settings(BaseSettings):
    """What the environment says (prefix ``WDH_``); every path is taken from the current folder."""

    model_config = SettingsConfigDict(env_prefix="WDH_", env_ignore_empty=True, extra="ignore")

    data_base_dir: Path = Path("data")
    work_dir: Path = Path("work")
    data_sources_config: Path = Path("data_sources.yml")
    database_uri: SecretStr | None = None
    embedded_dir: Path | None = None
    luigid_dir: Path | None = None
    log_format: LogFormat = "text"
    read_memory_mb: int = Field(default=2048, gt=0)
    read_seconds: float = Field(default=1200, gt=0)

    def warehouse_uri(self) -> str:
        """
        Return the libpq URI to load into, or the word ``embedded``.

        Raises:
            ConfigError: unset, or no URI. There is no default: a variable lost in a cron job must not load a private
                database.
        """
        if self.database_uri is None:
            raise ConfigError(
                "WDH_DATABASE_URI",
                "not set, and nothing else names the database",
                "set it to a PostgreSQL URI (postgresql://user@host/database), or to the word embedded",
            )
        uri = self.database_uri.get_secret_value()
        if not uri.isprintable():
            raise ConfigError("WDH_DATABASE_URI", "is not UTF-8 text in one line", "percent-encode special characters")
        if "://" in uri and not _URI.fullmatch(uri):
            mend = "write it like postgresql://user@host:5432/database (percent-encode special characters: @ is %40)"
            raise ConfigError("WDH_DATABASE_URI", "is not a libpq URI", mend)
        return uri


class Section(BaseModel):
    """A part of data_sources.yml: an unknown key is an error, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _known_pattern(text: str) -> str:
    try:
        groups = set(re.compile(text, re.DOTALL).groupindex)
    except re.error as error:
        raise ValueError(f"is no regular expression ({error})") from error
    if len(groups & {"year", "month"}) == 1:
        raise ValueError("names one of the groups year and month without the other")
    return text


_LONGEST_NAME = 63  # bytes


def _plain_identifier(name: str) -> str:
    if not name or not name.isprintable():
        raise ValueError("is empty or holds a control character")
    if len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"is longer than the {_LONGEST_NAME} bytes that PostgreSQL keeps of a name")
    return name


def _table_name(name: str) -> str:
    parts = name.split(".")
    if len(parts) > 2:
        raise ValueError("has more than one dot: write table or schema.table")
    for part in parts:
        _plain_identifier(part)
    return name.removeprefix("public.")  # one spelling: receipts know their table by it


def _extension(text: str) -> str:
    if not re.fullmatch(r"\.[^./\s]+", text):
        raise ValueError("is no file extension: write it with its dot, like .xlsx")
    return text.lower()


def _sheet(value: Any) -> Any:
    named = isinstance(value, str) and value.strip()
    counted = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if value is not None and not named and not counted:
        raise ValueError("is neither a sheet's name nor an index from 0")
    return value


def _each_once(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("names a column twice")
    return names


class Discovery(Section):
    """Which files of the inbox are looked at, for every domain."""

    file_extensions: Annotated[list[Annotated[str, AfterValidator(_extension)]], Field(min_length=1)] = [
        ".xlsx",
        ".xlsm",
        ".xls",
        ".xlsb",
        ".ods",
    ]
    exclude_directories: list[str] = []
    ignore_patterns: list[str] = []
    max_depth: int = Field(default=10, ge=0)
    follow_symlinks: bool = False


class DomainConfig(Section):
    """How one domain's workbooks are found, read and loaded."""

    description: str = ""
    pattern: Annotated[str, AfterValidator(_known_pattern)]
    select: Select = "latest_by_year_month"
    on_tie: Literal["error", "newest"] = "error"
    sheet: Annotated[int | str | None, BeforeValidator(_sheet)] = None
    table: Annotated[str, AfterValidator(_table_name)]
    pk: Annotated[list[Annotated[str, AfterValidator(_plain_identifier)]], AfterValidator(_each_once)] = []
    replace: Literal["keys", "place"] = "keys"
    overlap: Literal["error", "replace"] = "error"
    mode: Mode = "delete_insert"
    reader: Reader = "auto"
    rate_unit: RateUnit = "auto"
    max_reject_ratio: float = Field(default=0.5, ge=0, le=1)
    max_delete_ratio: float = Field(default=0.5, ge=0, le=1)
    lock_timeout: int = Field(default=600, gt=0)
    statement_timeout: int = Field(default=0, ge=0)
    keep_history: bool = False

    @model_validator(mode="after")
    def _keys_to_delete_by(self) -> DomainConfig:
        if self.mode == "delete_insert" and not self.pk:
            raise ValueError("has no pk, by whose columns delete_insert deletes")
        return self

    @model_validator(mode="after")
    def _room_for_the_history(self) -> DomainConfig:
        if self.keep_history and len(self.table.rpartition(".")[2].encode()) > _LONGEST_NAME - len("_history"):
            raise ValueError(f"keeps a history: its table's name with _history is longer than {_LONGEST_NAME} bytes")
        return self


class DataSources(Section):
    """The whole of data_sources.yml."""

    domains: dict[str, DomainConfig] = Field(min_length=1)
    discovery: Discovery = Discovery()


def load_settings() -> Settings:
    """Read the ``WDH_`` variables."""
    return _settings(tuple(one for one in os.environ.items() if one[0].upper().startswith("WDH_")))


@functools.lru_cache(maxsize=4)
def _settings(variables: tuple[tuple[str, str], ...]) -> Settings:
    """Read the variables once for each state that they are in: every step of every workbook asks."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "WDH_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(name, first["msg"], "correct the environment variable") from error


def load_data_sources(path: Path) -> DataSources:
    """
    Read and validate data_sources.yml.

    Raises:
        ConfigError: names the key, its line, and for an unknown key the nearest known one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            str(path),
            f"cannot be read ({error.strerror})",
            "run in the folder that holds data_sources.yml, or set WDH_DATA_SOURCES_CONFIG",
        ) from error
    return _parse(str(path), content)


@functools.lru_cache(maxsize=4)
def _parse(name: str, content: bytes) -> DataSources:
    try:
        root, document = _compose(name, content.decode("utf-8"))
        repeated = next(_repeated_keys(root), None)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}, line {line}", "is not UTF-8", "save the file as UTF-8") from error
    except RecursionError as error:
        raise ConfigError(name, "is nested without end", "correct the file") from error
    if not isinstance(document, dict):
        raise ConfigError(name, "holds no settings", "it needs a section domains")
    if repeated:
        line, key = repeated
        raise ConfigError(f"{name}, line {line}", f"the key {key!r} stands twice", "keep one of the two")
    try:
        return DataSources.model_validate(document)
    except ValidationError as error:
        raise _first_problem(name, root, error) from error


class _Loader(yaml.SafeLoader):
    """YAML's plain types, where a value that is none of them (a date 2024-13-01) has its line too."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.MarkedYAMLError(problem=f"{error}: put it into quotes", problem_mark=node.start_mark) from error


def _compose(name: str, text: str) -> tuple[yaml.Node | None, Any]:
    """Return a YAML document with its marks, and as plain values."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return root, None if root is None else loader.construct_document(root)
    except yaml.reader.ReaderError as error:
        line, what = text.count("\n", 0, error.position) + 1, f"character {chr(error.character)!r}"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, what = mark.line + 1 if mark else 1, str(error.problem)
    raise ConfigError(f"{name}, line {line}", f"is not YAML ({what})", "correct the file")


def _repeated_keys(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Yield (line, key) of keys that YAML would silently let win over an earlier one."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                yield key.start_mark.line + 1, key.value
            seen.add(str(key.value))
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated_keys(value)


# Pydantic's words for what YAML calls otherwise.
_WORDS = {
    "missing": "is missing",
    "model_type": "is no section of keys",
    "dict_type": "is no section of keys",
    "list_type": "is no list: write it like [one, another]",
    "string_type": "is no text: put it into quotes",
    "bool_type": "is neither true nor false",
    "too_short": "is empty",
}


def _first_problem(name: str, root: yaml.Node | None, error: ValidationError) -> ConfigError:
    # Unknown keys first: a misspelt key is also what makes a required one look missing.
    problem = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    loc = [str(part) for part in problem["loc"] if part != "[key]"]
    where = f"{name}, line {_line(root, loc)}"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(loc[:-1])
        near = difflib.get_close_matches(loc[-1].lower(), known, n=1, cutoff=0.6)
        mend = f"did you mean {near[0]}?" if near else "known are " + ", ".join(known)
        return ConfigError(where, f"unknown key {'.'.join(loc)}", mend)
    message = _WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, ").removeprefix("Input "))
    found = problem["input"]
    got = "" if problem["type"] == "missing" or isinstance(found, Mapping) else f" (got {found!r})"
    return ConfigError(where, f"{'.'.join(loc)} {message}{got}", "correct the file")


def _known_keys(parents: list[str]) -> list[str]:
    section: type[Section] = DataSources
    if parents[:1] == ["domains"]:
        section = DomainConfig
    elif parents[:1] == ["discovery"]:
        section = Discovery
    return sorted(section.model_fields)


def _line(node: yaml.Node | None, loc: list[str]) -> int:
    """Return the line, from 1, of the deepest part of a key's path that the file holds."""
    line = 1
    for part in loc:
        following: Any = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, following = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            following = node.value[int(part)]
            line = following.start_mark.line + 1
        if following is None:
            break
        node = following
    return line


def domain_config(sources: DataSources, domain: str, path: Path) -> DomainConfig:
    """Return one domain's entry, or name the domains that there are."""
    if domain not in sources.domains:
        raise ConfigError(
            str(path),
            f"no domain {domain!r}; it has {', '.join(sorted(sources.domains))}",
            "correct --domain, or add the domain to the file",
        )
    return sources.domains[domain]


def override(config: DomainConfig, *, mode: str | None, sheet: str | None) -> DomainConfig:
    """
    Return the domain's entry with the task parameters in place of what the file says.

    Raises:
        ConfigError: the parameter has no such value, or the mode needs a key that the file does not name.
    """
    modes = get_args(Mode)
    if mode is not None and mode not in modes:
        raise ConfigError("--mode", f"{mode!r} is no mode", f"use {' or '.join(modes)}")
    changed = config.model_dump()
    if sheet is not None:
        changed["sheet"] = sheet
    if mode is not None:
        changed["mode"] = mode
    try:
        return DomainConfig.model_validate(changed)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        mend = "add pk to the domain in data_sources.yml, or use append"
        raise ConfigError("--mode", f"{mode} cannot be used: the domain {message}", mend) from error
