"""debsecan and pip-audit themselves, over small feeds in the forms in which they are published."""

from __future__ import annotations

import itertools
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy import vulnerabilities as asking
from gatehouse.proof import debian, sbom
from gatehouse.proof.vulnerabilities import FeedError, Side
from tests.feeds import JINJA, archive, mirrored
from tests.unit.test_vulnerabilities import ORDER

GATEWAY = """os\tdebian\t12\t12.11
kernel\t6.1.0-37-amd64
package\tinstalled\tlibnghttp2-14\t1.52.0-1\tamd64\tnghttp2\t1.52.0-1
package\tinstalled\topenssh-server\t1:9.2p1-2+deb12u3\tamd64\topenssh\t1:9.2p1-2+deb12u3
package\tinstalled\tlibstdc++6\t12.2.0-14+deb12u1\tamd64\tgcc-12\t12.2.0-14+deb12u1
package\tinstalled\tgrafana\t11.0.0\tamd64\tgrafana\t11.0.0
"""


@pytest.fixture(scope="module", autouse=True)
def _debsecan(programs: Callable[..., None]) -> None:
    programs("debsecan", "debsecan")


def of_debian(source: str, said: str = GATEWAY) -> Side:
    return asking.of_debian("gw", sbom.answer(said), asking.Tracker(source))


def test_debsecan_finds_what_is_fixable_and_no_package_that_is_fixed(tmp_path: Path) -> None:
    side = of_debian(mirrored(tmp_path))
    assert [(f.package, f.vulnerability, f.fixed_in) for f in side.findings] == [
        ("libnghttp2-14", "CVE-2023-44487", "1.52.0-1+deb12u1"),
        ("libstdc++6", "CVE-2022-27943", ""),
    ]
    assert (side.packages, side.left_out) == (3, ("grafana 11.0.0",))
    upgraded = GATEWAY.replace("1.52.0-1\t", "1.52.0-1+deb12u1\t").replace("1.52.0-1\n", "1.52.0-1+deb12u1\n")
    assert of_debian(mirrored(tmp_path), upgraded).fixable == ()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (GATEWAY.replace("debian\t12", "debian\t99"), "debian 99: no release"),
        (GATEWAY.replace("os\tdebian\t12", "os\tdebian\t13"), "download the feed of trixie"),
    ],
)
def test_a_gateway_of_another_release_is_not_judged_by_this_feed(tmp_path: Path, said: str, why: str) -> None:
    with pytest.raises(FeedError, match=why):
        of_debian(mirrored(tmp_path), said)


def test_a_feed_that_does_not_say_its_suite_is_refused_and_one_of_no_use_too(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="which suite is it of"):
        of_debian(str(Path(mirrored(tmp_path, "downloaded")) / "downloaded"))
    with pytest.raises(FeedError, match="bookworm of .*: names no vulnerability at all"):
        of_debian(mirrored(tmp_path, feed="VERSION 1\n\n\n\n"))


def nobody() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def test_a_mirror_that_does_not_answer_is_named_and_no_good_news() -> None:
    with pytest.raises(FeedError, match="/bookworm: .*Connection refused"):
        of_debian(nobody())


def test_versions_are_ordered_as_dpkg_orders_them() -> None:
    for one, other in itertools.pairwise(ORDER):
        subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=True)
        assert debian.key(one) < debian.key(other)


@pytest.fixture
def published(tmp_path: Path) -> Callable[..., str]:
    def make(*entries: dict[str, Any]) -> str:
        (tmp_path / "all.zip").write_bytes(archive(*entries))
        return str(tmp_path / "all.zip")

    return make


@pytest.fixture
def lock(tmp_path: Path) -> Callable[[str], Path]:
    def make(version: str) -> Path:
        path = tmp_path / "requirements.lock"
        path.write_text(f"jinja2=={version} \\\n    --hash=sha256:{'0' * 64}\n")
        return path

    return make


def test_pip_audit_finds_what_is_fixable_and_no_package_that_is_fixed(
    published: Callable[..., str], lock: Callable[[str], Path]
) -> None:
    source = published(JINJA)
    side = asking.of_python(lock("3.1.2"), source, print)
    assert [(f.package, f.version, f.vulnerability, f.fixed_in) for f in side.findings] == [
        ("jinja2", "3.1.2", "CVE-2024-22195", "3.1.3")
    ], side
    side = asking.of_python(lock("3.1.3"), source, print)
    assert (side.findings, side.packages, side.problem) == ((), 1, "")


def test_every_package_of_the_kit_is_asked_for(published: Callable[..., str]) -> None:
    side = asking.of_python(asking.ROOT / asking.LOCK, published(JINJA), print)
    assert side.problem == "" and side.packages > 40


def test_a_source_of_python_packages_that_does_not_answer_or_says_nothing_is_no_good_news(
    published: Callable[..., str], lock: Callable[[str], Path]
) -> None:
    for source, why in (
        (nobody(), "can't be reached: ConnectionError (try --python-source)"),
        (published(), "names no vulnerability"),
        (__file__, "no archive of"),
    ):
        side = asking.of_python(lock("3.1.3"), source, print)
        assert why in side.problem and "\n" not in side.problem, side
        assert "NOT KNOWN" in str(side) and "none known" not in str(side)
