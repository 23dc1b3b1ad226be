"""Addresses at which no model is, however they are written, and the endpoints that allow them."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from model_workers.providers.http import make_client
from modelyard.catalog import Endpoint
from modelyard.catalog_file import load_catalog
from modelyard.errors import CatalogError, SettingsError
from modelyard.link_local import is_link_local

CATALOG = """
models:
  - name: small
    provider: openai
    endpoints:
      - {base_url: "https://api.example.com/v1"}
      - {base_url: "http://${HOST}/v1"%s}
routes: {default: {otherwise: [small]}}
"""


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "169.254.169.254.",
        "2852039166",
        "0xa9fea9fe",
        "0xA9.254.43518",
        "0251.0376.0251.0376",
        "fe80::1",
        "[fe80::1]",
        "febf::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "fd00:ec2::254",
        "FD00:0EC2:0:0:0:0:0:0254",
        "fd20:ce::254",
        "100.100.100.200",
        "metadata.google.internal",
        "Metadata.Google.Internal.",
        "metadata.goog",
    ],
)
def test_it_is_known_however_it_is_written(host: str) -> None:
    assert is_link_local(host)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "::1",
        "10.0.0.7",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.201",
        "169.253.255.255",
        "169.255.0.0",
        "fd00::254",
        "fec0::1",
        "::ffff:10.0.0.7",
        "64:ff9b::a00:7",
        "api.openai.com",
        "metadata.example.com",
        "face",
        "1.2.3.4.5",
        "",
    ],
)
def test_own_servers_and_all_other_names_are_none(host: str) -> None:
    assert not is_link_local(host)


def load(tmp_path: Path, host: str, more: str = "") -> Any:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG % more)
    return load_catalog(path, {"HOST": host})


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]:80", "metadata.google.internal"])
def test_the_catalog_refuses_it_on_its_line(tmp_path: Path, host: str) -> None:
    with pytest.raises(CatalogError) as caught:
        load(tmp_path, host)
    (problem,) = caught.value.problems
    assert problem == (
        f"{tmp_path}/catalog.yaml:7: model 'small', endpoint 2: 'base_url' is a link-local or "
        "metadata address: set allow_link_local: true if a model is there"
    )


def test_the_catalog_takes_it_where_it_is_allowed(tmp_path: Path) -> None:
    catalog = load(tmp_path, "169.254.171.7", ", allow_link_local: true")
    assert catalog.models[0].endpoints[1].base_url == "http://169.254.171.7/v1"


def test_no_client_is_made_for_one_that_was_not_checked() -> None:
    endpoint = Endpoint(base_url="http://10.0.0.7/v1")
    changed = endpoint.model_copy(update={"base_url": "http://169.254.169.254/v1"})
    with pytest.raises(SettingsError, match="link-local or metadata address"):
        make_client(changed, timeout_s=1, concurrency=1)


async def test_a_client_is_made_where_it_is_allowed() -> None:
    endpoint = Endpoint(base_url="http://169.254.169.254/v1", allow_link_local=True)
    client = make_client(endpoint, timeout_s=1, concurrency=1)
    assert isinstance(client, httpx.AsyncClient)
    await client.aclose()


def test_an_endpoint_made_by_a_program_is_checked_too() -> None:
    with pytest.raises(ValidationError, match="allow_link_local"):
        Endpoint(base_url="http://169.254.169.254/v1")
