"""Lists of devices: what a spreadsheet writes is read, and a bad line is refused by its number and hides no other."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatehouse.identity.candidates import Request
from gatehouse.identity.devicelist import ListError, read_list
from gatehouse.identity.enrolment import EnrolmentError
from tests.unit.enrolling import a_house, a_request

HEADER = b"name,model,hardware_address\n"


def listed(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "devices.csv"
    path.write_bytes(content)
    return path


def test_a_list_is_read_line_by_line(tmp_path: Path) -> None:
    requests, refused = read_list(listed(tmp_path, HEADER + b"a,esp32,02:00:00:00:00:01\nb,esp32,\n"))
    assert refused == []
    assert requests == [
        Request("a", "esp32", hardware_address="02:00:00:00:00:01", line=2),
        Request("b", "esp32", line=3),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbfname,model\r\na,esp32\r\nb,"esp32"\r\n',
        b"name;model\na;esp32\nb;esp32\n",
        b"\n\nName , MODEL\n# a comment\na, esp32 \n\n  \nb,esp32",
        b'model,name\nesp32,a\n"esp32","b"\n',
    ],
    ids=["from Windows", "semicolons", "spaces, comments and empty lines", "other order"],
)
def test_spreadsheets_have_their_ways(tmp_path: Path, content: bytes) -> None:
    requests, refused = read_list(listed(tmp_path, content))
    assert ([(request.name, request.model) for request in requests], refused) == ([("a", "esp32"), ("b", "esp32")], [])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"a,es\xff32,", "byte 5 is no UTF-8; save the list as UTF-8"),
        (b"a", "has 1 fields and not 3"),
        (b"a,b,c,d", "has 4 fields and not 3"),
        (b'a,"esp32,', "has a quote that doesn't end"),
        (b'a,"es"p32,', "has a quote that doesn't end, or in the wrong place"),
        (b"a," + b"x" * 5000 + b",", "longer than 4096 bytes"),
    ],
)
def test_a_bad_line_is_refused_by_its_number_and_hides_no_other(tmp_path: Path, line: bytes, why: str) -> None:
    requests, refused = read_list(listed(tmp_path, HEADER + b"one,esp32,\n" + line + b"\ntwo,esp32,\n"))
    assert [(request.name, request.line) for request in requests] == [("one", 2), ("two", 4)]
    assert [refusal.line for refusal in refused] == [3]
    assert str(refused[0]).startswith(f"line 3: {why}")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty; its first line names the columns"),
        (b"\n \n", "is empty"),
        (b"a,esp32\n", "'a' is no column"),
        (b"name,model,colour\n", "'colour' is no column"),
        (b"name,name\n", "'name' is no column, or twice"),
        (b"model,address\n", "no column 'name'"),
        (b"\xff\xfen\x00a\x00", "byte 1 is no UTF-8"),
        (b"PK\x03\x04" + b"x" * 9000, "longer than 4096 bytes; is this a list of devices?"),
    ],
)
def test_what_is_no_list_is_refused_with_its_name(tmp_path: Path, content: bytes, why: str) -> None:
    path = listed(tmp_path, content)
    with pytest.raises(ListError, match=f"^{re.escape(str(path))}: .*{re.escape(why)}"):
        read_list(path)


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ListError, match="can't be read .No such file"):
        read_list(tmp_path / "none.csv")
    with pytest.raises(ListError, match="can't be read .Is a directory"):
        read_list(tmp_path)


def test_requests_are_read_from_beside_the_list(tmp_path: Path) -> None:
    request = a_request("a")
    (tmp_path / "a.csr").write_bytes(request)
    requests, refused = read_list(listed(tmp_path, b"name,model,csr\na,m,a.csr\nb,m,b.csr\nc,m,\n"))
    assert [(request_.name, request_.csr) for request_ in requests] == [("a", request), ("c", None)]
    assert "'b.csr': no certificate request can be read there" in str(refused[0])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.lists(st.binary(max_size=30), max_size=6).map(lambda x: HEADER + b"\n".join(x)))
def test_no_bytes_make_the_reader_fail_other_than_with_a_message(tmp_path: Path, content: bytes) -> None:
    path = listed(tmp_path, content)
    try:
        requests, refused = read_list(path)
    except ListError as error:
        assert str(error).startswith(f"{path}: ")
        return
    lines = [item.line for item in (*requests, *refused)]
    assert len(set(lines)) == len(lines)
    assert all(isinstance(line, int) and 1 < line <= content.count(b"\n") + 1 for line in lines)


_CELL = st.text(
    alphabet=st.characters(codec="utf-8", exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=20
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(_CELL, _CELL), min_size=1, max_size=5))
def test_what_the_standard_writer_writes_is_read_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("name", "model"), *rows])
    requests, refused = read_list(listed(tmp_path, text.getvalue().encode()))
    assert refused == []
    assert [(request.name, request.model or "") for request in requests] == [(a.strip(), b.strip()) for a, b in rows]


def test_a_hundred_thousand_lines_are_read_and_each_bad_one_is_told(tmp_path: Path) -> None:
    lines = (f"d{n},esp32,\n" if n % 10 else f"D{n},esp32,\n" for n in range(100_000))
    requests, unread = read_list(listed(tmp_path, HEADER + "".join(lines).encode()))
    assert (len(requests), unread) == (100_000, [])
    house = a_house(tmp_path)
    with pytest.raises(EnrolmentError) as caught:
        house.enroller().enrol(requests)
    told = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in told[:-1]] == [f"line {number}" for number in range(2, 100_002, 10)]
    assert house.devices() == {}
