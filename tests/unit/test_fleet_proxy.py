"""The generated nginx configuration, as text; what it lets through is tried in tests/integration/test_fleet_api.py."""

import re

import pytest

from server.config import FleetApiSection, ServerSettings
from server.proxy import CALLS, ProxyError, render
from shared_models.configuration import ConfigurationError


def section(**changes):
    return FleetApiSection.model_validate(
        {"names": ["noria.example.org"], "certificates": "/etc/noria/fleet"} | changes
    )


def test_one_upstream_on_the_loopback_and_one_place_that_leads_to_it():
    text = render(section(listen=["192.0.2.7", "2001:db8::7"], port=9443), 8765)
    assert re.findall(r"^\s*server (\S+);", text, re.MULTILINE) == ["127.0.0.1:8765"]
    assert re.findall(r"listen (\S+) ssl;", text) == ["192.0.2.7:9443", "[2001:db8::7]:9443"]
    assert text.count("proxy_pass") - text.count("proxy_pass_") == 1
    assert "http2" not in text
    assert "@" not in text


def test_every_call_of_flowers_fleet_api_is_let_through_but_those_about_registration():
    from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

    fleet = {path.removeprefix("/v1/fleet/") for _, path in PROTOBUF_REQUEST_TYPES if path.startswith("/v1/fleet/")}
    assert set(CALLS) == fleet - {"register-node", "unregister-node"}


@pytest.mark.parametrize("folder", ['/etc/"; return 200; "', "/etc/$uri", "/etc/a\nb", "/etc/a;b", "/etc/{a}"])
def test_a_path_that_means_something_to_nginx_is_refused(folder):
    with pytest.raises(ProxyError, match="cannot hold such a path"):
        render(section(certificates=folder), 8000)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ('names = ["noria.example.org;"]', "fleet_api.names.0"),
        ('names = ["Noria.Example"]', "neither a DNS name in lower case nor an address"),
        ("names = []", "fleet_api.names"),
        ('names = ["a"]\nlisten = ["0.0.0.0; return 200"]', "fleet_api.listen.0"),
        ('names = ["a"]\nport = 70000', "fleet_api.port"),
        ('names = ["a"]\nkeys = false', "fleet_api.keys: unknown key"),
    ],
)
def test_a_wrong_table_is_refused_by_name(tmp_path, change, named):
    path = tmp_path / "server.toml"
    path.write_text(f'state_dir = "s"\nkey_file = "k"\n[fleet_api]\ncertificates = "c"\n{change}\n')
    with pytest.raises(ConfigurationError, match=named):
        ServerSettings.from_toml(path)
