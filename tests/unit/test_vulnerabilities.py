"""Known vulnerabilities: what is fixable, what is not, and what nobody could be asked; never one for the other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy import vulnerabilities as asking
from deploy.inventory import ROOT
from gatehouse.proof import debian, feeds, sbom, vulnerabilities
from gatehouse.proof.vulnerabilities import FeedError, Finding, Side
from gatehouse.site import load
from tests.checkout import Checkout, copied
from tests.feeds import archive, packed

# As debsecan 0.4.20.1 prints it with `--format detail`.
DETAIL = """CVE-2023-44487 (fixed, remotely exploitable, high urgency)
  The HTTP/2 protocol allows a denial of service (server resource consum ...
  installed: libnghttp2-14 1.52.0-1
             (built from nghttp2 1.52.0-1)
  fixed in unstable: nghttp2 1.57.0-1 (source package)
  fixed on branch:   nghttp2 1.43.0-1+deb11u1 (source package)
  fixed on branch:   nghttp2 1.52.0-1+deb12u1 (source package)
  fix is available for the selected suite (bookworm)

CVE-2022-27943 (low urgency)
  libiberty/rust-demangle.c in GNU GCC 11.2 allows stack consumption in  ...
  installed: libstdc++6 12.2.0-14+deb12u1
             (built from gcc-12 12.2.0-14+deb12u1)

CVE-2099-0001
  Known in unstable alone
  installed: adduser 3.134
             (built from adduser 3.134)
             package is obsolete
  fixed in unstable: adduser 3.200 (source package)

"""


def test_fixable_is_what_has_a_fix_in_the_suite_and_its_version_is_the_lowest_that_is_higher() -> None:
    found = {each.vulnerability: each for each in vulnerabilities.of_debsecan(DETAIL)}
    http = found["CVE-2023-44487"]
    assert (http.package, http.version, http.fixed_in) == ("libnghttp2-14", "1.52.0-1", "1.52.0-1+deb12u1")
    assert http.mend == "apt-get install --only-upgrade libnghttp2-14"
    assert [found[name].fixed_in for name in ("CVE-2022-27943", "CVE-2099-0001")] == ["", ""]
    assert vulnerabilities.of_debsecan("") == ()


@pytest.mark.parametrize("said", ["Traceback", "CVE-1 (fixed)\n  text\n", "error: while downloading\n\n"])
def test_what_debsecan_never_says_is_no_list(said: str) -> None:
    with pytest.raises(FeedError, match="nothing that it says of a package"):
        vulnerabilities.of_debsecan(said)


PACKAGES = [
    {
        "name": "jinja2",
        "version": "3.1.2",
        "vulns": [
            {"id": "GHSA-h5c8-rqwp-cp95", "aliases": ["CVE-2024-22195"], "fix_versions": ["3.1.3"], "description": "x"},
            {"id": "PYSEC-1", "aliases": [], "fix_versions": [], "description": "y"},
            {"id": "PYSEC-2", "aliases": [], "fix_versions": ["3.10", "3.9", "2.0"], "description": "z"},
        ],
    },
    {"name": "markupsafe", "version": "3.0.4", "vulns": []},
]


def test_pip_audits_answer_names_the_lowest_version_that_mends_it() -> None:
    asked, found, skipped = vulnerabilities.of_pip_audit(json.dumps({"dependencies": PACKAGES}))
    assert (asked, skipped) == (2, ())
    assert [(each.vulnerability, each.fixed_in) for each in found] == [
        ("CVE-2024-22195", "3.1.3"),
        ("PYSEC-1", ""),
        ("PYSEC-2", "3.9"),
    ]


def test_a_package_that_the_source_does_not_know_is_not_one_without_vulnerabilities() -> None:
    said = {"dependencies": [*PACKAGES, {"name": "segno", "skip_reason": "Dependency not found on PyPI"}]}
    assert vulnerabilities.of_pip_audit(json.dumps(said))[2] == ("segno",)


@pytest.mark.parametrize(
    "said", ["", "{}", "[]", '{"dependencies": [{"name": "a"}]}', "No known vulnerabilities found"]
)
def test_an_answer_of_another_form_is_none(said: str) -> None:
    with pytest.raises(FeedError, match="its answer can't be read"):
        vulnerabilities.of_pip_audit(said)


FIXABLE = Finding("openssl", "3.0.9-1", "CVE-1", "3.0.10-1", "apt-get install --only-upgrade openssl")
WAITING = Finding("bash", "5.2", "CVE-2", "", "")


@pytest.mark.parametrize(
    ("sides", "status"),
    [
        ([Side("gw", "a feed", 3)], 0),
        ([Side("gw", "a feed", 3, (WAITING,))], 0),
        ([Side("gw", "a feed", 3, (WAITING, FIXABLE))], 1),
        ([Side("gw", "a feed", 3), Side("this machine", "", 0, problem="no route")], 2),
        ([Side("gw", "a feed", 3, (FIXABLE,)), Side("this machine", "", 0, problem="no route")], 1),
        ([], 2),
    ],
)
def test_the_exit_status_tells_upgrade_from_not_known_from_well(sides: list[Side], status: int) -> None:
    assert vulnerabilities.status(sides) == status
    assert vulnerabilities.document("home", sides)["status"] == status


def test_the_table_has_a_row_a_package_and_a_line_a_side() -> None:
    many = [Finding("openssl", "1", f"CVE-{n}", "2", "upgrade") for n in range(5)]
    text = vulnerabilities.table([Side("gw", "a feed", 9, (*many, WAITING)), Side("cabin", "", 0, problem="no route")])
    assert text.splitlines() == [
        "where  package  version  vulnerability                   fixed in  mend",
        "gw     openssl  1        CVE-0, CVE-1, CVE-2 and 2 more  2         upgrade",
        "",
        "gw: 5 fixable, 1 without a fix yet, in 9 packages (a feed)",
        "cabin: NOT KNOWN: no route",
    ]
    assert "none known" not in text


def test_what_is_not_debians_is_named_as_not_spoken_of() -> None:
    assert str(Side("gw", "a feed", 9, left_out=("grafana 11.0",))) == (
        "gw: none known, in 9 packages (a feed; not spoken of: grafana 11.0)"
    )


ORDER = [
    "1.0~~",
    "1.0~rc1",
    "1.0",
    "1.0-1~bpo1",
    "1.0-1",
    "1.0-1+deb12u1",
    "1.0-1.1",
    "1.0a",
    "1.0+b",
    "1.0.1",
    "1.10",
    "1:0.1",
]


def test_debians_versions_are_in_their_order() -> None:
    assert sorted(reversed(ORDER), key=debian.key) == ORDER
    assert debian.key("1.0-0") == debian.key("1.0") == debian.key("0:1.00")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not all of one"),
        (b"<html>", "not all of one"),
        (packed("VERSION 2\nCVE-1,,x\n"), "not all of one"),
        (packed("VERSION 1\nCVE-1,,x\n\n")[:-6], "not all of one"),
        (packed("VERSION 1\n\n\n\n"), "no vulnerability at all"),
    ],
)
def test_a_feed_of_debians_that_says_nothing_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(FeedError, match=why):
        feeds.judge_debian(data)


def entry(events: list[dict[str, str]], versions: list[str] | None = None, name: str = "Jinja2") -> dict[str, Any]:
    affected = {
        "package": {"ecosystem": "PyPI", "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
        "versions": versions or [],
    }
    return {"id": "X", "affected": [affected, {"package": {"ecosystem": "npm", "name": "jinja2"}}]}


def affects(version: str, *args: Any) -> bool:
    question = {"package": {"name": "jinja2", "ecosystem": "PyPI"}, "version": version}
    return bool(feeds.osv_answer(feeds.osv_entries(archive(entry(*args))), question))


def test_a_version_is_affected_where_it_is_listed_or_in_a_range() -> None:
    twice = [{"fixed": "2.5"}, {"introduced": "0"}, {"introduced": "3.0"}, {"last_affected": "3.2"}]
    assert [affects(v, twice) for v in ("0.1a1", "2.4", "2.5", "3.0", "3.2", "3.2.1")] == [
        True, True, False, True, True, False,
    ]  # fmt: skip
    assert affects("3.1.0", [], ["3.1"]) and not affects("3.2", [], ["3.1", "not-a-version"])
    assert affects("9.9", [{"introduced": "0"}, {"fixed": "not-a-version"}])


def test_another_package_is_not_affected() -> None:
    found = feeds.osv_entries(archive(entry([{"introduced": "0"}], name="Other.Name")))
    assert list(found) == ["other-name"]
    assert feeds.osv_answer(found, {"package": {"name": "jinja2"}, "version": "1"}) == {}
    assert feeds.osv_answer(found, {"package": {"name": "other_name"}, "version": "1"}) != {}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no archive"),
        (archive({"id": "X", "affected": [{}]}), "no archive"),
        (archive({"id": "X"})[:-9], "no archive"),
        (archive({"id": "X"}), "no vulnerability"),
        (archive(entry([]), suffix="txt"), "no vulnerability"),
    ],
)
def test_an_archive_that_says_nothing_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(FeedError, match=why):
        feeds.osv_entries(data)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return copied(tmp_path_factory.mktemp("vulnerabilities") / "checkout")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--debian-source", "http://mirror.example/"), "could leave entries out"),
        (("--python-source", "ftp://mirror.example/"), "no web address"),
        (("--python-source", "/nowhere/all.zip"), "no such file"),
        (("--gateway", "attic"), "no gateway 'attic'"),
        (("--site", "attic"), "no inventories/attic"),
    ],
)
def test_a_source_or_a_gateway_that_cannot_be_meant_is_refused_in_one_line(
    checkout: Checkout, options: tuple[str, ...], why: str
) -> None:
    done = checkout.invoke("vulnerabilities", *options)
    assert (done.status, done.out) == (1, "") and why in done.err, done.text
    assert done.err.count("\n") == 1


def test_a_gateway_that_cannot_be_asked_is_not_known_and_the_others_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any) -> Any:
        raise sbom.SbomError("gateway: failed to connect\nreally")

    monkeypatch.setattr(asking, "connected", unreachable)
    monkeypatch.setattr(asking, "of_python", lambda *_: Side(asking.OPERATOR, "a feed", 3))
    sides = asking.look(load("lab", ROOT), "", "", "", print)
    assert [str(side) for side in sides] == [
        "this machine: none known, in 3 packages (a feed)",
        "gateway: NOT KNOWN: failed to connect really",
    ]
    assert vulnerabilities.status(sides) == 2


def test_a_package_that_is_not_known_hides_nothing_of_the_others_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"dependencies": [*PACKAGES, {"name": "segno", "skip_reason": "Dependency not found on PyPI"}]}
    monkeypatch.setattr(asking, "environment", lambda *_: ROOT)
    monkeypatch.setattr(asking, "_pip_audit", lambda *_: json.dumps(said))
    side = asking.of_python(ROOT / asking.LOCK, "", print)
    assert side.problem == "PyPI: knows nothing of 1 of 3 packages, such as segno (try --python-source)"
    assert vulnerabilities.status([side]) == 1 and "CVE-2024-22195" in vulnerabilities.table([side])
