"""The device registry: read fast and exactly, written so that nobody's lines or changes are lost."""

from __future__ import annotations

import datetime
import errno
import multiprocessing
import os
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatehouse.identity import files
from gatehouse.site import Device, SiteError
from gatehouse.site.registry import parse, read, scan
from gatehouse.site.registry_writer import Registry, RegistryError, facts_of

fork = multiprocessing.get_context("fork")

WRITTEN_BY_HAND = """\
# The devices of home: public facts only.
# One table a device.

[[device]]
name = "kitchen-01"   # above the sink
model = "esp32-sht31"
gateway = "gateway"
# changed in May
status = "active" # for now

# The pump makes noise.
[[device]]
model = "esp32-relay"
name = "pump-02"
gateway = "gateway"

# the end
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "home.toml"
    made.write_text(WRITTEN_BY_HAND)
    return made


def device(name: str, **facts: Any) -> Device:
    return Device(**{"name": name, "model": "m", "gateway": "gateway", **facts})


def changed(path: Path, name: str, **facts: Any) -> str:
    with Registry(path).transaction() as registry:
        registry.change(name, **facts)
    return path.read_text()


# reading


def test_a_registry_is_read_as_it_stands(path: Path) -> None:
    assert [entry["name"] for entry in read(path)] == ["kitchen-01", "pump-02"]
    assert read(path)[0]["status"] == "active"


def test_a_missing_registry_has_no_devices(tmp_path: Path) -> None:
    assert read(tmp_path / "none.toml") == []


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"[[device]]\nname = ", "is no TOML"),
        (b'[[device]]\nname = "\xff"', "is no TOML"),
        (b'[[device]]\nname = "a"\nname = "b"\n', "is no TOML"),
        (b"[[device]]\nwhen = 2026-02-30T00:00:00Z\n", "is no TOML"),
        (b'name = "a"\n', "name: unknown key"),
        (b'[device]\nname = "a"\n', "is no list of tables"),
        (b"device = [1]\n", "is no list of tables"),
        (b"a = " + b"[" * 5000, "is no TOML"),
        (b'[[device]]\r\nname = "a\rb"\n', "is no TOML"),
    ],
)
def test_what_is_no_registry_is_refused_in_one_line_that_names_the_file(
    tmp_path: Path, content: bytes, what: str
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_bytes(content)
    with pytest.raises(SiteError) as caught:
        read(bad)
    assert what in str(caught.value)
    assert str(caught.value).startswith(f"{bad}: ")
    assert "\n" not in str(caught.value)


def test_a_registry_that_may_not_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="can't be read: Is a directory"):
        read(tmp_path)


def test_what_the_writer_writes_needs_no_general_parser(path: Path) -> None:
    with Registry(path).transaction() as registry:
        registry.add(
            [device("a", serials=("1f", "2"), hmac_key=3, address="10.0.0.9", not_after="2027-01-01T00:00:00Z")]
        )
    assert scan(path.read_text()) == tomllib.loads(path.read_text())["device"]


_KEY = st.sampled_from(["name", "model", "status", "x1"])
_VALUE = st.one_of(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=8).map(lambda text: f'"{text}"'),
    st.sampled_from(['["a", "b"]', "[]", '["a","b"]', '["a, b"]', '[ "a" ]', "[1]", '["a",]', "['a']"]),
    st.sampled_from(["1", "-1", "007", "1_0", "0x1f", "true", "1.5", "99999999999999999999"]),
    st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01 00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T25:00:00Z"]),
    st.sampled_from(["2026-01-01", "2026-01-01T00:00:00+01:00", "0000-01-01T00:00:00Z", "2026-01-01T00:00:60Z"]),
)  # fmt: skip
_LINE = st.one_of(
    st.sampled_from(
        ["[[device]]", " [[device]] ", "[[ device ]]", "[[device]] # c", "[device]", "[[device.x]]", "", " "]
    ),
    st.sampled_from(["# comment", "\t# é", "#\x7f", "# \x01", '"""', "x = '''", "[[device"]),
    st.builds(lambda key, value, end: f"{key} = {value}{end}", _KEY, _VALUE, st.sampled_from(["", " ", " # c", "\r"])),
    st.text(max_size=12),
)


@settings(max_examples=600, deadline=None)
@given(st.lists(_LINE, max_size=8).map("\n".join))
def test_whatever_the_scanner_accepts_it_reads_as_the_standard_parser_does(text: str) -> None:
    found = scan(text)
    if found is not None:
        assert found == tomllib.loads(text).get("device", [])


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200) | st.lists(_LINE, max_size=8).map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))
)
def test_no_bytes_make_the_reader_fail_other_than_with_a_message(raw: bytes) -> None:
    try:
        entries = parse(raw, Path("x.toml"))
    except SiteError as error:
        assert str(error).startswith("x.toml: ")
    else:
        assert all(isinstance(entry, dict) for entry in entries)


# writing


def test_a_change_touches_its_own_line_and_comments_and_order_survive(path: Path) -> None:
    text = changed(path, "kitchen-01", status="revoked")
    assert text == WRITTEN_BY_HAND.replace('status = "active" # for now', 'status = "revoked" # for now')


def test_a_new_fact_stands_with_its_device_and_not_below_the_comment_of_the_next(path: Path) -> None:
    text = changed(path, "kitchen-01", serials=["1f", "2"])
    assert text == WRITTEN_BY_HAND.replace("# for now\n", '# for now\nserials = ["1f", "2"]\n')


def test_a_fact_is_removed(path: Path) -> None:
    assert changed(path, "kitchen-01", status=None) == WRITTEN_BY_HAND.replace('status = "active" # for now\n', "")


def test_new_devices_come_last_and_all_else_stays_as_it_was(path: Path) -> None:
    with Registry(path).transaction() as registry:
        registry.add([device("x"), device("y", segment="guest", status="quarantined")])
    assert path.read_text() == WRITTEN_BY_HAND + (
        '\n[[device]]\nname = "x"\nmodel = "m"\ngateway = "gateway"\nsegment = "iot"\n'
        '\n[[device]]\nname = "y"\nmodel = "m"\ngateway = "gateway"\nsegment = "guest"\nstatus = "quarantined"\n'
    )


def test_a_registry_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    path = tmp_path / "devices" / "new.toml"
    with Registry(path).transaction() as registry:
        registry.add([device("x")])
    assert [entry["name"] for entry in read(path)] == ["x"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_every_fact_of_a_device_comes_back_as_it_was(path: Path) -> None:
    moment = datetime.datetime(2026, 5, 1, 12, 30, 15, tzinfo=datetime.UTC)
    full = device(
        "full", model='the "best"\n\tÜ \\ one', hardware_address="02:00:00:00:00:01", address="10.0.0.9",
        serials=("ab", "c"), not_before=moment, not_after=moment, spki_sha256="0" * 64, hmac_key=7, status="revoked",
    )  # fmt: skip
    with Registry(path).transaction() as registry:
        registry.add([full])
    assert Device.model_validate(read(path)[-1]) == full
    assert "Ü" in path.read_text()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30))
def test_any_text_is_written_so_that_it_reads_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("registry") / "x.toml"
    with Registry(path).transaction() as registry:
        registry.add([device("x", model=text)])
    with Registry(path).transaction() as registry:
        registry.change("x", model=text + "!")
    assert read(path)[0]["model"] == text + "!"


@pytest.mark.parametrize(
    "text",
    [
        WRITTEN_BY_HAND.replace("[[device]]", "  [[ device ]]  # one"),
        WRITTEN_BY_HAND.replace("[[device]]", '[["device"]]'),
        WRITTEN_BY_HAND.replace('model = "esp32-relay"', 'model = """\n[[device]]\nname = "pump-02"\n"""'),
        WRITTEN_BY_HAND.replace("\n", "\r\n"),
        WRITTEN_BY_HAND.rstrip("\n"),
        WRITTEN_BY_HAND.replace("# changed in May", "serials = [\n  'a1', # old\n]"),
    ],
    ids=["spaces", "quoted header", "long text", "CRLF", "no last newline", "long list"],
)
def test_other_ways_to_write_toml_are_changed_and_added_to_as_well(path: Path, text: str) -> None:
    path.write_bytes(text.encode())
    before = tomllib.loads(text)["device"]
    with Registry(path).transaction() as registry:
        registry.change("pump-02", status="revoked")
        registry.add([device("new")])
    after = read(path)
    assert after[:2] == [before[0], {**before[1], "status": "revoked"}]
    assert (after[2]["name"], len(after)) == ("new", 3)
    assert all(comment in path.read_text() for comment in ("# The pump makes noise.", "# above the sink", "# the end"))


def test_one_inline_list_is_changed_but_not_added_to(path: Path) -> None:
    inline = "device = [{name = 'a', model = 'm', gateway = 'g'}]\n"
    path.write_text(inline)
    with (
        pytest.raises(RegistryError, match=r"no place for new; write a \[\[device\]\] table"),
        Registry(path).transaction() as registry,
    ):
        registry.add([device("new")])
    assert path.read_text() == inline


def test_a_device_that_is_there_is_not_added_and_one_that_is_not_is_not_changed(path: Path) -> None:
    with pytest.raises(RegistryError, match="'pump-02' is there already"), Registry(path).transaction() as registry:
        registry.add([device("pump-02")])
    with pytest.raises(RegistryError, match="no device 'nobody'"), Registry(path).transaction() as registry:
        registry.change("nobody", status="revoked")
    assert path.read_text() == WRITTEN_BY_HAND


def test_two_devices_of_one_name_are_an_error_and_not_a_guess(path: Path) -> None:
    path.write_text(WRITTEN_BY_HAND.replace("pump-02", "kitchen-01"))
    with pytest.raises(RegistryError, match="device 2 has no name, or that of another"):
        Registry(path).read()


def test_a_block_that_raises_changes_nothing_and_is_forgotten(path: Path) -> None:
    registry = Registry(path)
    with pytest.raises(ZeroDivisionError), registry.transaction():
        registry.change("pump-02", status="revoked")
        1 / 0  # noqa: B018
    with registry.transaction():
        registry.add([device("new")])
    assert [entry.get("status") for entry in read(path)] == ["active", None, None]


def test_a_transaction_that_changes_nothing_writes_nothing(path: Path) -> None:
    before = path.stat().st_ino
    with Registry(path).transaction():
        pass
    assert path.stat().st_ino == before
    changed(path, "pump-02", status="revoked")
    assert path.stat().st_ino != before


def test_what_others_wrote_meanwhile_stays(path: Path) -> None:
    stale = Registry(path)
    stale.read()
    changed(path, "kitchen-01", status="quarantined")
    path.write_text(path.read_text() + "# a line of an editor\n")
    with stale.transaction():
        stale.change("pump-02", status="revoked")
    assert [entry["status"] for entry in read(path)] == ["quarantined", "revoked"]
    assert "# a line of an editor" in path.read_text()


def test_a_link_to_the_registry_and_its_mode_are_kept(path: Path) -> None:
    link = path.with_name("link.toml")
    link.symlink_to(path)
    path.chmod(0o664)
    changed(link, "pump-02", status="revoked")
    assert link.is_symlink()
    assert (read(path)[1]["status"], path.stat().st_mode & 0o777) == ("revoked", 0o664)


def write_ten(path: Path, writer: int) -> None:
    registry = Registry(path)
    for number in range(10):
        with registry.transaction():
            registry.add([device(f"w{writer}-{number}")])
            if number:
                registry.change(f"w{writer}-{number - 1}", status="revoked")


def test_concurrent_writers_lose_none_of_each_others_changes(path: Path) -> None:
    writers = [fork.Process(target=write_ten, args=(path, writer)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0] * 4
    found = {entry["name"]: entry.get("status") for entry in read(path)[2:]}
    assert found == {f"w{w}-{n}": "revoked" if n < 9 else None for w in range(4) for n in range(10)}
    assert path.read_text().startswith(WRITTEN_BY_HAND)


STEPS = ("open", "write", "fchmod", "fsync", "replace")


def killed_at_step(path: Path, step: int) -> bool:
    """Change the registry in a child that is killed before its step-th system call; False when it had fewer."""
    child = os.fork()
    if child == 0:
        try:
            count = 0
            real = {name: getattr(os, name) for name in STEPS}

            def counted(name: str, *args: Any, **named: Any) -> Any:
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real[name](*args, **named)

            for name in STEPS:
                setattr(files.os, name, lambda *args, _name=name, **named: counted(_name, *args, **named))
            changed(path, "pump-02", status="revoked")
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new_registry_and_no_lock(path: Path) -> None:
    outcomes: list[bool] = []
    new = WRITTEN_BY_HAND.replace("\n\n# the end", '\nstatus = "revoked"\n\n# the end')
    while killed_at_step(path, len(outcomes) + 1):
        outcomes.append(path.read_text() != WRITTEN_BY_HAND)
        assert path.read_text() in (WRITTEN_BY_HAND, new)
        changed(path, "pump-02", status=None)
        assert path.read_text() == WRITTEN_BY_HAND
    assert {False, True} == set(outcomes)


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_registry_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    registry = Registry(path)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, failing, fails)
        with (
            pytest.raises(RegistryError, match="not written .No space left on device., it is as it was"),
            registry.transaction(),
        ):
            registry.change("pump-02", status="revoked")
    assert (path.read_text(), [p.name for p in path.parent.iterdir() if p.suffix == ".new"]) == (WRITTEN_BY_HAND, [])
    with registry.transaction():
        registry.change("pump-02", status="revoked")
    assert read(path)[1]["status"] == "revoked"


def test_the_registry_holds_no_fact_that_is_as_by_default_but_the_segment() -> None:
    assert facts_of(device("x")) == {"name": "x", "model": "m", "gateway": "gateway", "segment": "iot"}


def test_ten_thousand_devices_are_added_and_one_of_them_changed_without_parsing_them_all_by_tomlkit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Registry(path).transaction() as registry:
        registry.add(device(f"d{number}", serials=("a" * 32,)) for number in range(10_000))
    from gatehouse.site import registry_writer

    parsed: list[int] = []
    real = registry_writer.tomlkit.parse
    monkeypatch.setattr(registry_writer.tomlkit, "parse", lambda text: (parsed.append(len(text)), real(text))[1])
    changed(path, "d7000", status="revoked")
    assert [entry["name"] for entry in read(path) if entry.get("status") == "revoked"] == ["d7000"]
    assert parsed and sum(parsed) < 500
