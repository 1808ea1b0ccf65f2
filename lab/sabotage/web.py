"""Sabotages of the HTTPS front."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

_ELSEWHERE = "{iot,guest,internal,internet}"

SABOTAGES = (
    Sabotage(
        name="no-front",
        title="The HTTPS front is stopped",
        breaks="systemctl stop nginx.service",
        catches=("host.runs-nginx", "gateway.nginx.{https,http}-from-management"),
        may={
            f"gateway.nginx.{{https,http}}-from-{_ELSEWHERE}": "it answers nobody, so silence elsewhere proves nothing",
            "scan.tcp-from-management": "a declared port is closed",
        },
        apart_from=("front-*",),
    ),
    Sabotage(
        name="front-for-all",
        title="The HTTPS front listens on every address, and the firewall lets everybody to it",
        breaks=r"""
            for file in nginx.conf $(cd $WEB && ls names/*.conf); do
                edit $WEB/$file 's/listen [0-9.]+:/listen *:/; s/listen \[[0-9a-f:]+\]:/listen [::]:/'
            done
            systemctl restart nginx.service
            admit input 'fib daddr . iif type local tcp dport { 80, 443 } counter accept'
        """,
        catches=(f"gateway.nginx.{{https,http}}-from-{_ELSEWHERE}",),
        may={
            "scan.{tcp,other-addresses}-from-*": "what answers is open to a scan, too",
            "gateway.other-addresses-from-*": "the rule names no destination address",
        },
        apart_from=("no-front",),
    ),
)
