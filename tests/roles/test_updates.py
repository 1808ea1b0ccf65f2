"""The update server as rendered, run by nginx itself: who gets what, and who nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gatehouse.identity import Pki
from roles.nginx import files as nginx
from roles.target import Target
from roles.updates import files
from tests.roles.updateserver import Server, serving

IMAGE = bytes(range(256)) * 16


@pytest.fixture
def server(
    gateway_of: Callable[..., Target], new_pki: Callable[[], Pki], programs: Callable[..., None], tmp_path: Path
) -> Iterator[Server]:
    programs("nginx", "nginx")
    pki, models = new_pki(), {"one": "relay", "two": "sensor"}
    credentials = {name: pki.device(name) for name in (*models, "stranger")}
    contents = {
        f"{model}/{name}": data
        for model in models.values()
        for name, data in (("1.0.0.bin", IMAGE), ("manifest", model.encode()))
    }
    with serving(gateway_of, tmp_path, pki, credentials, models, contents) as found:
        yield found


def test_a_device_gets_its_own_models_files_and_no_others(server: Server) -> None:
    assert server.ask("one", "/relay/manifest") == (200, b"relay")
    assert server.ask("two", "/sensor/1.0.0.bin") == (200, IMAGE)
    for path in ("/sensor/manifest", "/relay/../sensor/manifest", "/relay/%2e%2e/sensor/manifest", "/relay//../x"):
        assert server.ask("one", path)[0] in (400, 403), path


def test_nothing_is_listed_and_an_interrupted_download_goes_on(server: Server) -> None:
    assert [server.ask("one", path)[0] for path in ("/", "/relay", "/relay/", "/relay/.hidden")] == [403] * 4
    assert server.ask("one", "/relay/1.0.0.bin", Range="bytes=4000-") == (206, IMAGE[4000:])


def test_who_shows_no_certificate_or_one_that_the_registry_does_not_know_gets_nothing(server: Server) -> None:
    assert server.ask("one", "/relay/manifest")[0] == 200
    assert server.ask(None, "/relay/manifest")[0] == 400
    assert server.ask("stranger", "/relay/manifest")[0] == 403


@pytest.mark.parametrize("status", ["revoked", "quarantined"])
def test_who_is_cut_off_gets_nothing_from_then_on_and_the_others_go_on(server: Server, status: Any) -> None:
    server.bring(server.target(one=status))
    assert server.becomes("one", "/relay/manifest", 403)
    assert server.ask("two", "/sensor/manifest") == (200, b"sensor")
    server.bring(server.target())
    assert server.becomes("one", "/relay/manifest", 200)


def test_a_revoked_certificate_is_no_longer_known_whatever_the_status(server: Server) -> None:
    server.pki.revoke(server.credentials["one"].serial)
    server.bring(server.target())
    assert server.becomes("one", "/relay/manifest", 403)


def test_who_asks_too_often_is_told_to_wait(server: Server) -> None:
    answers = [server.ask("two", "/sensor/manifest")[0] for _ in range(40)]
    assert answers[0] == 200
    assert answers[-1] != 200


def test_without_the_option_there_is_no_update_server(gateway_of: Callable[..., Target]) -> None:
    target = gateway_of()
    assert not files.on(target)
    assert not any(entry.path.startswith(files.FOLDER) for entry in nginx.configuration(target))


def test_what_nginx_gets_with_the_option_has_no_key_but_the_servers(server: Server) -> None:
    keys = [e.path for e in nginx.configuration(server.target()) if b"PRIVATE KEY" in getattr(e, "content", b"")]
    assert keys == [files.KEY]
