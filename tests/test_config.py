"""data_sources.yml and the WDH_ settings: what is accepted is obeyed, what is not is refused with its place."""

from __future__ import annotations

import json
import unicodedata
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg2.extensions import parse_dsn

from wdh_luigi.config import (
    DataSources,
    Discovery,
    DomainConfig,
    domain_config,
    load_data_sources,
    load_settings,
    override,
)
from wdh_luigi.discover import freeze, scan
from wdh_luigi.errors import ConfigError

SHIPPED = Path(__file__).parent.parent / "data_sources.yml"
SECRET = "s3cret-w0rd"
MINIMAL = r"""domains:
  trustee_performance:
    pattern: '(?P<year>20\d\d)(?P<month>\d\d)'
    table: t
    pk: [a]
"""
EVERY_KEY = r"""domains:
  trustee_performance:
    description: monthly
    pattern: '(?P<source>.+)(?P<year>20\d\d)(?P<month>\d\d)'
    select: latest_by_mtime
    on_tie: newest
    sheet: 业绩
    table: dw.业绩
    pk: [report_date, plan_code]
    replace: place
    overlap: replace
    mode: append
    rate_unit: percent
    reader: openpyxl
    max_delete_ratio: 0.25
    lock_timeout: 30
    statement_timeout: 60
    keep_history: true
    max_reject_ratio: 0.25
discovery:
  file_extensions: [.XLSX]
  exclude_directories: [备份]
  ignore_patterns: ['~$*']
  max_depth: 3
  follow_symlinks: true
"""


def written(folder: Path, content: str | bytes) -> Path:
    """Write a data_sources.yml."""
    path = folder / "data_sources.yml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def sources(folder: Path, content: str | bytes) -> DataSources:
    return load_data_sources(written(folder, content))


def refusal(folder: Path, content: str | bytes) -> str:
    """Return the one line by which a data_sources.yml is refused, from its own name on."""
    path = written(folder, content)
    with pytest.raises(ConfigError) as caught:
        load_data_sources(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    return line.removeprefix(f"{folder}/")


def with_key(key: str, value: str) -> str:
    """Return MINIMAL with a key of the domain set on its own line, in place of the one there."""
    kept = [line for line in MINIMAL.splitlines() if not line.startswith(f"    {key}:")]
    return "\n".join([*kept, f"    {key}: {value}", ""])


def test_every_key_is_taken_as_it_is_written(tmp_path: Path) -> None:
    """A key that is read but lost on the way would be accepted and not obeyed."""
    found = sources(tmp_path, EVERY_KEY).model_dump()
    asked = yaml.safe_load(EVERY_KEY)
    asked["discovery"]["file_extensions"] = [".xlsx"]  # without regard to case
    assert asked == found


def test_what_is_left_out_has_the_value_that_the_design_names(tmp_path: Path) -> None:
    """The defaults are promises as well."""
    found = sources(tmp_path, MINIMAL)
    domain = found.domains["trustee_performance"]
    assert (domain.select, domain.on_tie, domain.sheet, domain.mode) == (
        "latest_by_year_month",
        "error",
        None,
        "delete_insert",
    )
    assert (domain.replace, domain.overlap, domain.rate_unit, domain.max_reject_ratio) == ("keys", "error", "auto", 0.5)
    assert found.discovery.follow_symlinks is False


def test_the_shipped_file_leaves_out_what_the_design_says() -> None:
    """Backups and Excel's lock files lie in every inbox."""
    discovery = load_data_sources(SHIPPED).discovery
    assert discovery.exclude_directories == ["backup", "备份", "archive", "归档", "temp"]
    assert discovery.ignore_patterns == ["~$*", ".*", "*.tmp", "*.bak", "*.eml"]


@pytest.mark.parametrize(
    ("content", "line", "key", "near"),
    [
        (MINIMAL + "    selekt: latest_by_mtime\n", 6, "domains.trustee_performance.selekt", "select"),
        (MINIMAL + "    SELECT: latest_by_mtime\n", 6, "domains.trustee_performance.SELECT", "select"),
        (MINIMAL + "discovery:\n  max_deepth: 3\n", 7, "discovery.max_deepth", "max_depth"),
        (MINIMAL.replace("domains:", "domain:"), 1, "domain", "domains"),
        (MINIMAL.replace("pattern:", "patern:"), 3, "domains.trustee_performance.patern", "pattern"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known(
    tmp_path: Path, content: str, line: int, key: str, near: str
) -> None:
    """A misspelt key that is passed over would run with its default."""
    assert refusal(tmp_path, content) == f"data_sources.yml, line {line}: unknown key {key}; did you mean {near}?"


def test_a_key_like_no_other_is_answered_with_those_there_are(tmp_path: Path) -> None:
    """No guess is better than a wrong one."""
    assert "known are exclude_directories, file_extensions, " in refusal(tmp_path, MINIMAL + "discovery: {qqq: 1}\n")


@pytest.mark.parametrize(
    ("content", "line", "key"),
    [
        (MINIMAL + "    table: other\n", 6, "table"),
        (MINIMAL + "discovery: {max_depth: 1}\ndiscovery: {max_depth: 2}\n", 7, "discovery"),
        (MINIMAL + MINIMAL.removeprefix("domains:\n"), 6, "trustee_performance"),
        (MINIMAL + "discovery:\n  max_depth: 1\n  'max_depth': 2\n", 8, "max_depth"),
    ],
)
def test_a_repeated_key_is_refused(tmp_path: Path, content: str, line: int, key: str) -> None:
    """YAML takes the last one in silence, here the other table."""
    assert refusal(tmp_path, content).startswith(f"data_sources.yml, line {line}: the key '{key}' stands twice")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("pattern", "2024", "is no text: put it into quotes (got 2024)"),
        ("pattern", "", "is no text: put it into quotes (got None)"),
        ("table", "5", "is no text: put it into quotes (got 5)"),
        ("table", "[t]", "is no text: put it into quotes (got ['t'])"),
        ("description", "2024-11-01", "is no text: put it into quotes"),
        ("pk", "a", "is no list: write it like [one, another] (got 'a')"),
        ("pk", "[1]", "pk.0 is no text: put it into quotes (got 1)"),
        ("pk", "[a, b, a]", "names a column twice (got ['a', 'b', 'a'])"),
        ("select", "newest", "should be 'latest_by_year_month', 'latest_by_year_month_and_version' or"),
        ("on_tie", "yes", "should be 'error' or 'newest' (got True)"),
        ("replace", "all", "should be 'keys' or 'place' (got 'all')"),
        ("overlap", "keep", "should be 'error' or 'replace' (got 'keep')"),
        ("mode", "upsert", "should be 'delete_insert' or 'append' (got 'upsert')"),
        ("rate_unit", "'%'", "should be 'auto', 'ratio' or 'percent' (got '%')"),
        ("sheet", "-1", "is neither a sheet's name nor an index from 0 (got -1)"),
        ("sheet", "yes", "is neither a sheet's name nor an index from 0 (got True)"),
        ("sheet", "1.5", "is neither a sheet's name nor an index from 0 (got 1.5)"),
        ("sheet", "[0]", "is neither a sheet's name nor an index from 0 (got [0])"),
        ("sheet", "' '", "is neither a sheet's name nor an index from 0 (got ' ')"),
        ("max_reject_ratio", "50", "should be less than or equal to 1 (got 50)"),
        ("max_reject_ratio", "-0.1", "should be greater than or equal to 0 (got -0.1)"),
        ("max_reject_ratio", ".nan", "(got nan)"),
        ("max_reject_ratio", "yes", "should be a valid number (got True)"),
        ("max_reject_ratio", "50%", "should be a valid number (got '50%')"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_what_was_found(
    tmp_path: Path, key: str, value: str, says: str
) -> None:
    """YAML makes numbers, dates and booleans of words; taken silently they would mean something else."""
    line = refusal(tmp_path, with_key(key, value))
    number = 5 if f" {key}:" in MINIMAL else 6
    assert line.startswith(f"data_sources.yml, line {number}: domains.trustee_performance.{key}")
    assert says in line


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("file_extensions", "[]", "is empty"),
        ("file_extensions", "[xlsx]", "file_extensions.0 is no file extension: write it with its dot, like .xlsx"),
        ("file_extensions", "[.xlsx, 5]", "file_extensions.1 is no text"),
        ("file_extensions", "['*.xlsx']", "is no file extension"),
        ("exclude_directories", "backup", "is no list"),
        ("exclude_directories", "[2024]", "exclude_directories.0 is no text"),
        ("ignore_patterns", "[~]", "ignore_patterns.0 is no text"),
        ("max_depth", "-1", "should be greater than or equal to 0"),
        ("max_depth", "true", "should be a valid integer"),
        ("max_depth", "'3'", "should be a valid integer"),
        ("follow_symlinks", "'no'", "is neither true nor false (got 'no')"),
        ("follow_symlinks", "1", "is neither true nor false (got 1)"),
    ],
)
def test_discovery_refuses_what_it_could_not_obey(tmp_path: Path, key: str, value: str, says: str) -> None:
    """A list that is a word would exclude the letters of the word."""
    line = refusal(tmp_path, MINIMAL + f"discovery:\n  {key}: {value}\n")
    assert line.startswith(f"data_sources.yml, line 7: discovery.{key}")
    assert says in line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds no settings; it needs a section domains"),
        ("# nothing\n", "holds no settings"),
        ("- domains\n", "holds no settings"),
        ("domains", "holds no settings"),
        ("discovery: {}\n", "domains is missing"),
        ("domains:\n", "line 1: domains is no section of keys"),
        ("domains: {}\n", "line 1: domains is empty"),
        ("domains: [a]\n", "line 1: domains is no section of keys"),
        ("domains:\n  d:\n", "line 2: domains.d is no section of keys"),
        (MINIMAL.replace("trustee_performance", "2024"), "line 2: domains.2024 is no text"),
        (MINIMAL + "discovery:\n", "line 6: discovery is no section of keys"),
        (MINIMAL + "discovery: [1]\n", "line 6: discovery is no section of keys"),
        ("domains: [\n", "line 2: is not YAML (expected the node content"),
        ("domains:\n\td: 1\n", "line 2: is not YAML (found character '\\t'"),
        (MINIMAL + "---\n" + MINIMAL, "line 6: is not YAML (but found another document"),
        (MINIMAL + "    description: a\0b\n", "line 6: is not YAML (character '\\x00')"),
        (MINIMAL + "    description: 2024-13-01\n", "line 6: is not YAML (month must be in 1..12: put it into quotes)"),
        (MINIMAL + "    description: !!python/object/apply:os.getcwd []\n", "line 6: is not YAML (could not determine"),
        (MINIMAL.encode("utf-16"), "line 1: is not UTF-8; save the file as UTF-8"),
        (MINIMAL.encode() + "    description: 受托业绩\n".encode("gbk"), "line 6: is not UTF-8"),
        ("domains: &all\n  d: *all\n", "is nested without end"),
        ("[" * 5000, "is nested without end"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(
    tmp_path: Path, content: str | bytes, says: str
) -> None:
    """Whatever an editor made of the file, the user learns the line, not a traceback."""
    assert says in refusal(tmp_path, content)


@pytest.mark.parametrize("content", ["\ufeff" + MINIMAL, MINIMAL.replace("\n", "\r\n"), MINIMAL + "\n\n# end"])
def test_what_windows_editors_add_is_no_matter(tmp_path: Path, content: str) -> None:
    """Notepad writes a byte order mark and carriage returns."""
    assert sources(tmp_path, content).domains["trustee_performance"].table == "t"


def test_a_missing_file_says_where_it_is_looked_for(tmp_path: Path) -> None:
    """The usual cause is the wrong folder."""
    path = tmp_path / "elsewhere.yml"
    with pytest.raises(ConfigError, match=r"elsewhere\.yml: cannot be read \(No such file.*WDH_DATA_SOURCES_CONFIG"):
        load_data_sources(path)
    with pytest.raises(ConfigError, match="Is a directory"):
        load_data_sources(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(20", "is no regular expression (missing ), unterminated subpattern at position 0)"),
        (r"(?P<year>20\d\d)", "names one of the groups year and month without the other"),
        (r"(?P<month>\d\d)", "names one of the groups year and month without the other"),
        (r"(?P<year>20\d\d)(?P<year>\d\d)", "is no regular expression (redefinition of group name 'year'"),
    ],
)
def test_a_pattern_that_cannot_give_a_period_is_refused(tmp_path: Path, pattern: str, says: str) -> None:
    """A year without a month is no period; better said now than with the first workbook."""
    line = refusal(tmp_path, with_key("pattern", f"'{pattern}'"))
    assert f"domains.trustee_performance.pattern {says}" in line


def test_a_pattern_may_do_without_a_period(tmp_path: Path) -> None:
    """The sheet's own period columns say it then."""
    assert sources(tmp_path, with_key("pattern", "受托")).domains["trustee_performance"].pattern == "受托"


@pytest.mark.parametrize("pk", ["", "    pk: []\n"])
def test_delete_insert_needs_a_key(tmp_path: Path, pk: str) -> None:
    """Without one there is nothing to delete by; append needs none."""
    content = MINIMAL.replace("    pk: [a]\n", pk)
    assert refusal(tmp_path, content).startswith(
        "data_sources.yml, line 2: domains.trustee_performance has no pk, by whose columns delete_insert deletes"
    )
    appending = sources(tmp_path, content + "    mode: append\n").domains["trustee_performance"]
    assert appending.mode == "append"
    with pytest.raises(ConfigError, match=r"--mode: delete_insert cannot be used: the domain has no pk.*; add pk"):
        override(appending, mode="delete_insert", sheet=None)


@pytest.mark.parametrize("table", ["t", "dw.t", "业绩.受托", 'a"b', "a'b", "a b; DROP", "受" * 21, "t" * 63, "Z"])
def test_a_table_may_have_any_name_that_postgresql_keeps(tmp_path: Path, table: str) -> None:
    """Names are quoted, never pasted; 63 bytes is what PostgreSQL keeps."""
    content = with_key("table", json.dumps(table))
    assert sources(tmp_path, content).domains["trustee_performance"].table == table


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("t" * 64, "is longer than the 63 bytes that PostgreSQL keeps of a name"),
        ("受" * 22, "is longer than the 63 bytes"),
        ("dw." + "t" * 64, "is longer than the 63 bytes"),
        ("a.b.c", "has more than one dot: write table or schema.table"),
        (r"a\tb", "is empty or holds a control character"),
        (r"a\nb", "is empty or holds a control character"),
        (r"a\0b", "is empty or holds a control character"),
        (r"a\ud800", "is empty or holds a control character"),
        ("", "is empty or holds a control character"),
        (".t", "is empty or holds a control character"),
        ("dw.", "is empty or holds a control character"),
    ],
)
def test_a_table_name_that_postgresql_would_change_is_refused(tmp_path: Path, table: str, says: str) -> None:
    """A name cut at 63 bytes, or split at the wrong dot, is another table."""
    assert f"domains.trustee_performance.table {says}" in refusal(tmp_path, with_key("table", f'"{table}"'))


def shipped(tmp_path: Path, *names: str) -> list[tuple[str, str]]:
    """Return (period, source) of the workbooks that the shipped pattern takes of these names."""
    inbox = tmp_path / "inbox"
    inbox.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (inbox / name).write_text(str(number))
    found = load_data_sources(SHIPPED)
    domain = found.domains["trustee_performance"].model_copy(update={"on_tie": "newest"})
    (inbox / "甲2001年1月受托业绩.xlsx").touch()  # so that none of the others is no error
    files = scan(inbox, domain, found.discovery)
    snapshot = freeze(inbox, "d", domain, files, period="all", hashes={}, today=date(2030, 1, 1))
    return [(f.period, f.source) for f in snapshot.files if f.period > "2001-01"]


@pytest.mark.parametrize(
    ("name", "period"),
    [
        ("2024年11月受托业绩报告.xlsx", "2024-11"),
        ("2024_11_受托业绩.xlsx", "2024-11"),
        ("2024-11-受托业绩.xlsx", "2024-11"),
        ("202411受托业绩.xlsx", "2024-11"),
        ("24年11月受托业绩.xlsx", "2024-11"),
        ("2024年1月受托业绩.xlsx", "2024-01"),
        ("2024年01月受托业绩.xlsx", "2024-01"),
        ("2024年10月受托业绩.xlsx", "2024-10"),
        ("2024年12月受托业绩.xlsx", "2024-12"),
        ("2024_1_受托业绩.xlsx", "2024-01"),
        ("202401受托业绩.xlsx", "2024-01"),
        ("202410受托业绩.xlsx", "2024-10"),
        ("2024年11月受托业绩（更正）v2 最终.XLSX", "2024-11"),
        ("2024年11月受托业绩\n2025年1月.xlsx", "2024-11"),
    ],
)
def test_the_shipped_pattern_reads_the_names_that_trustees_use(tmp_path: Path, name: str, period: str) -> None:
    """January read for November would file a month's figures under another."""
    assert shipped(tmp_path, name) == [(period, "")]


@pytest.mark.parametrize(
    "name",
    [
        "2024_13_受托业绩.xlsx",
        "202413受托业绩.xlsx",
        "2024年13月受托业绩.xlsx",
        "2024年0月受托业绩.xlsx",
        "2024年00月受托业绩.xlsx",
        "2024年111月受托业绩.xlsx",
        "12024年11月受托业绩.xlsx",
        "124年11月受托业绩.xlsx",
        "20241受托业绩.xlsx",
        "2024年受托业绩.xlsx",
        "受托业绩2024年11月.xlsx",
        "2024年11月业绩.xlsx",
        "２０２４年１１月受托业绩.xlsx",
        "２０24年11月受托业绩.xlsx",
        "2024年1１月受托业绩.xlsx",
    ],
)
def test_the_shipped_pattern_leaves_what_it_would_have_to_guess(tmp_path: Path, name: str) -> None:
    """A month 13 is not January; the receipt tells why the name is none."""
    assert shipped(tmp_path, name) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("长河养老_2024_11_受托业绩.xlsx", "长河养老"),
        ("长河养老 - 2024年11月受托业绩.xlsx", "长河养老"),
        ("长河养老2024年11月受托业绩.xlsx", "长河养老"),
        ("ＡＢＣ－2024年11月受托业绩.xlsx", "ABC-"),
        ("2024年11月长河养老受托业绩.xlsx", ""),
        ("2024年11月受托业绩_长河养老.xlsx", ""),
        ("乙2023_2024年11月受托业绩.xlsx", "乙2023"),
    ],
)
def test_a_source_stands_before_the_date_only(tmp_path: Path, name: str, source: str) -> None:
    """What follows the date is a remark: taken for a source, every correction would be another trustee."""
    assert shipped(tmp_path, name) == [("2024-11", source)]


def test_a_name_is_compared_in_its_composed_form(tmp_path: Path) -> None:
    """macOS hands over decomposed names: é in two code points is the same source."""
    name = unicodedata.normalize("NFD", "Société_2024_11_受托业绩.xlsx")
    assert shipped(tmp_path, name) == [("2024-11", "Société")]


def test_an_unknown_domain_is_answered_with_those_there_are(tmp_path: Path) -> None:
    """A domain is easily mistyped on the command line."""
    found = sources(tmp_path, MINIMAL)
    with pytest.raises(ConfigError, match="no domain 'trustee'; it has trustee_performance; correct --domain"):
        domain_config(found, "trustee", tmp_path / "data_sources.yml")


def test_a_parameter_stands_before_the_file(tmp_path: Path) -> None:
    """--mode and --sheet are for this run; what they do not say stays."""
    config = sources(tmp_path, EVERY_KEY).domains["trustee_performance"]
    assert override(config, mode=None, sheet=None) == config
    changed = override(config, mode="delete_insert", sheet="0")
    assert changed == config.model_copy(update={"mode": "delete_insert", "sheet": "0"})
    with pytest.raises(ConfigError, match=r"^--mode: 'upsert' is no mode; use delete_insert or append$"):
        override(config, mode="upsert", sheet=None)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty is unset, as cron and containers leave variables; each setting has its variable."""
    assert str(load_settings().data_base_dir) == "data"
    values = {"DATA_BASE_DIR": "/in", "WORK_DIR": "/w", "DATA_SOURCES_CONFIG": "/c.yml", "DATABASE_URI": "embedded"}
    for name, value in values.items():
        monkeypatch.setenv(f"WDH_{name}", value)
    settings = load_settings()
    assert [str(getattr(settings, name.lower())) for name in list(values)[:3]] == ["/in", "/w", "/c.yml"]
    assert settings.warehouse_uri() == "embedded"
    for name in values:
        monkeypatch.setenv(f"WDH_{name}", "")
    empty = load_settings()
    assert (str(empty.data_base_dir), str(empty.work_dir), str(empty.data_sources_config), empty.database_uri) == (
        "data",
        "work",
        "data_sources.yml",
        None,
    )
    with pytest.raises(ConfigError, match=r"^WDH_DATABASE_URI: not set, and nothing else names the database; set it"):
        empty.warehouse_uri()


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://",
        "postgresql:///db",
        "postgres://user:p%40ss:word@host:5432/db?sslmode=require&application_name=a@b",
        "postgresql://u@[::1]:5433/db",
        "postgresql://u:p@h1:1,h2,[::1]:3/db",
        "postgresql://%2Fvar%2Frun/db",
        "postgresql:///db?host=/tmp/socket&port=5433",
        "host=/tmp dbname='a b' password=p@/",
        "embedded",
    ],
)
def test_every_uri_that_libpq_takes_is_taken(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps a secret out of messages must not shut out a database."""
    monkeypatch.setenv("WDH_DATABASE_URI", uri)
    assert load_settings().warehouse_uri() == uri
    if uri != "embedded":
        parse_dsn(uri)


def test_a_secret_is_in_no_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings end up in logs and tracebacks; their password must not."""
    monkeypatch.setenv("WDH_DATABASE_URI", f"postgresql://u:{SECRET}@h/d")
    settings = load_settings()
    texts: list[Any] = [settings, settings.model_dump(), settings.model_dump_json(), settings.__dict__]
    assert not any(SECRET in str(text) or SECRET in repr(text) for text in texts)
    assert SECRET in settings.warehouse_uri()


def test_every_key_that_the_design_names_is_known() -> None:
    """The design's list and the model's are one."""
    named = "description pattern select on_tie sheet table pk replace overlap mode reader rate_unit max_reject_ratio"
    named += " max_delete_ratio lock_timeout statement_timeout keep_history"
    assert sorted(named.split()) == sorted(DomainConfig.model_fields)
    shared = "file_extensions exclude_directories ignore_patterns max_depth follow_symlinks"
    assert sorted(shared.split()) == sorted(Discovery.model_fields)


def test_a_table_of_public_has_one_name(tmp_path: Path) -> None:
    """Receipts know their table by its name: public.performance and performance are one."""
    text = EVERY_KEY.replace("table: dw.业绩", "table: public.performance")
    assert sources(tmp_path, text).domains["trustee_performance"].table == "performance"
