"""What devices may use on the internet beyond their segment: lists by model and device, and what is wrong in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from deploy import drops
from gatehouse.collector import readings
from gatehouse.site import Site, SiteError, derive
from roles.nftables.ruleset import COUNTED
from tests.unit.test_site_model import description

PUMP = {"name": "pump", "model": "relay", "gateway": "gw", "hardware_address": "02:00:00:00:00:01"}
LAMP = {"name": "lamp", "model": "light", "gateway": "gw", "hardware_address": "02:00:00:00:00:02"}


def site(destinations: dict[str, Any], *devices: dict[str, Any], **iot: Any) -> Site:
    data = description()
    data["segments"]["iot"] |= iot
    return Site(**{**data, "destinations": destinations, "devices": list(devices)})


def problems(destinations: dict[str, Any], *devices: dict[str, Any], **iot: Any) -> str:
    with pytest.raises(SiteError) as refused:
        site(destinations, *devices, **iot)
    return str(refused.value)


def test_devices_with_the_same_list_share_a_profile() -> None:
    lists = {
        "updates": {"names": ["u.example.com"], "port": 443, "models": ["relay"]},
        "own": {"addresses": ["192.0.2.80"], "port": 8443, "devices": ["pump"]},
    }
    many = [{**PUMP, "name": f"relay-{n}", "hardware_address": f"02:00:00:00:01:{n:02x}"} for n in range(20)]
    profiles = derive(site(lists, PUMP, LAMP, *many), "gw").profiles
    assert [(p.destinations, len(p.devices)) for p in profiles] == [(("own", "updates"), 1), (("updates",), 20)]


@pytest.mark.parametrize("status", ["quarantined", "revoked"])
def test_who_is_cut_off_has_no_list(status: str) -> None:
    lists = {"updates": {"names": ["u.example.com"], "port": 443, "models": ["relay"]}}
    assert derive(site(lists, {**PUMP, "status": status}), "gw").profiles == ()
    assert derive(site(lists, PUMP), "gw").profiles


def test_a_list_of_single_devices_opens_nothing_for_their_segment() -> None:
    lists = {"own": {"addresses": ["192.0.2.80"], "port": 443, "devices": ["pump"]}}
    assert not derive(site(lists, PUMP), "gw").forwards_to("iot", ip_address("192.0.2.80"), 443, "tcp")
    lists["own"]["segments"] = ["iot"]
    assert derive(site(lists, PUMP), "gw").forwards_to("iot", ip_address("192.0.2.80"), 443, "tcp")


def test_a_range_with_a_resolver_in_it_does_not_open_that() -> None:
    lists = {"cloud": {"addresses": ["192.0.2.0/24"], "port": 443, "segments": ["iot"]}}
    data = {**description(), "destinations": lists, "foreign_resolvers": ["192.0.2.53"]}
    data["segments"]["iot"]["own_resolver"] = True
    policy = derive(Site(**data), "gw")
    assert policy.forwards_to("iot", ip_address("192.0.2.80"), 443, "tcp")
    assert not policy.forwards_to("iot", ip_address("192.0.2.53"), 443, "tcp")
    assert policy.forwards_to("guest", ip_address("192.0.2.53"), 443, "tcp")


@pytest.mark.parametrize(
    ("entry", "devices", "said"),
    [
        ({"port": 443, "segments": ["iot"]}, [], "leads nowhere (give it addresses, names or both)"),
        ({"names": ["a.example.com"], "port": 443}, [], "is for nobody (give it segments, models or devices)"),
        ({"names": ["a.example.com"], "port": 443, "devices": ["ghost"]}, [PUMP], "no device 'ghost'"),
        ({"names": ["a b.example.com"], "port": 443, "segments": ["iot"]}, [], "names 0: has characters"),
        ({"names": ["10.0.0.1"], "port": 443, "segments": ["iot"]}, [], "names 0: has characters"),
        (
            {"names": ["a.example.com"], "port": 443, "models": ["relay"]},
            [{**PUMP, "hardware_address": None}],
            "device 'pump' can't be told from others",
        ),
    ],
)
def test_what_is_wrong_with_a_destination_is_said(
    entry: dict[str, Any], devices: list[dict[str, Any]], said: str
) -> None:
    assert said in problems({"cloud": entry}, *devices)


def test_a_name_of_a_destination_that_nft_can_not_hold_is_refused() -> None:
    entry = {"names": ["a.example.com"], "port": 443, "segments": ["iot"]}
    assert "has characters or a length" in problems({'x"; drop': entry})
    assert site({"x-1": entry})


def test_port_53_is_no_destination_of_those_who_ask_the_gateway() -> None:
    entry = {"names": ["a.example.com"], "port": 853, "models": ["relay"]}
    assert "port 853 is for names" in problems({"dot": entry}, PUMP, own_resolver=True)
    assert site({"dot": entry}, PUMP)


def test_limits_out_of_range_are_refused() -> None:
    assert "segment 'iot' limits packets" in problems({}, limits={"packets": 1})
    assert site({}, limits={"packets": 100})


def test_the_collector_knows_refused_devices_by_name_and_counts_the_others_together_where_devices_are() -> None:
    def element(address: str, packets: int, bridge: str = "br-iot") -> dict[str, Any]:
        value = {"concat": [address, bridge]}
        return {"elem": {"val": value, "expires": 1, "counter": {"packets": packets, "bytes": 60}}}

    listed = [{"metainfo": {}}, {"set": {"name": "from_iot_4", "elem": ["0.0.0.0"]}}]
    elements = [element("02:00:00:00:00:01", 3), element("06:00:00:00:00:01", 1), element("06:00:00:00:00:02", 1)]
    elements += [element("06:00:00:00:00:03", 900, "br-guest"), element("06:00:00:00:00:04", 70, "br-internal")]
    listed += [{"set": {"name": "over_limit", "elem": elements}}, {"set": {"name": "forged"}}]
    ruleset = json.dumps({"nftables": listed})
    assert readings.refused(ruleset, {"02:00:00:00:00:01": "pump"}, ["br-iot"]) == [
        "refused,device=elsewhere,why=limit packets=970i",
        "refused,device=pump,why=limit packets=3i",
        "refused,device=unknown,why=limit packets=2i",
    ]


def test_refused_devices_are_listed_by_name_before_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(name: str, **packets: int) -> str:
        elements = [
            {"elem": {"val": {"concat": [a.replace("_", ":"), "br-iot"]}, "counter": {"packets": n, "bytes": 1}}}
            for a, n in packets.items()
        ]
        return json.dumps(
            {"nftables": [{"metainfo": {}}, {"set": {"name": name, **({"elem": elements} if elements else {})}}]}
        )

    said = [
        listed("refused_onwards", **{"02_00_00_00_00_01": 3, "06_00_00_00_00_01": 9}),
        listed("refused_here"),
        listed("over_limit", **{"02_00_00_00_00_01": 2}),
        listed("forged"),
    ]

    class Remote:
        def run(self, script: str) -> str:
            assert all(name in script for name in COUNTED)
            return "\n".join(said)

    @contextmanager
    def connected(*_: object) -> Iterator[Remote]:
        yield Remote()

    monkeypatch.setattr(drops, "connected", connected)
    rows = drops.rows(site({}, PUMP))
    assert [(row["device"], row["refused_onwards"], row["over_limit"]) for row in rows] == [("pump", 3, 2), ("", 9, 0)]
    assert drops.table(rows)[1].split() == ["gw", "pump", "02:00:00:00:00:01", "iot", "3", "-", "2", "-"]
    assert drops.table([]) == ["nobody was refused within the last day"]
