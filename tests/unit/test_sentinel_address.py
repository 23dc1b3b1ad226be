"""Addresses of sentinels, as people write them and as kombu reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.address import broker_address
from modelyard.app import make_app
from modelyard.errors import SettingsError
from modelyard.sentinel import SentinelAddress, parse
from modelyard.settings import Settings


def test_the_shortest_address_has_a_port_and_a_master() -> None:
    assert parse("sentinel://host") == SentinelAddress((("host", 26379),), "mymaster", 0)


def test_user_password_and_database_are_the_master_s_wherever_they_are_written() -> None:
    address = parse(
        "sentinel://me:s%40fe@a:1;sentinel://b:2/3?master_name=yard&sentinel_password=x"
    )

    assert address.sentinels == (("a", 1), ("b", 2))
    assert (address.username, address.password, address.db) == ("me", "s@fe", 3)
    assert (address.master_name, address.sentinel_password) == ("yard", "x")
    assert address.kombu_urls == ["sentinel://me:s%40fe@a:1/3", "sentinel://me:s%40fe@b:2/3"]


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
addresses = st.builds(
    SentinelAddress,
    st.lists(
        st.tuples(st.sampled_from(["a", "b.example", "::1"]), st.integers(1, 65535)),
        min_size=1,
        unique=True,
    ).map(tuple),
    master_name=names,
    db=st.integers(0, 15),
    username=st.none() | names,
    password=st.none() | names,
    sentinel_username=st.none() | names,
    sentinel_password=st.none() | names,
)


@given(addresses)
def test_an_address_is_read_as_it_was_written(address: SentinelAddress) -> None:
    assert parse(address.url) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sentinel://:secret@a;redis://b", "begins with sentinel://"),
        ("sentinel://:secret@a:x", "a port that is no number"),
        ("sentinel://", "no host"),
        ("sentinel://:secret@a/x", "its database is a number"),
        ("sentinel://:secret@a/1;sentinel://b/2", "do not agree on db"),
        ("sentinel://:secret@a?mastername=x", "of the option 'mastername' nothing is known"),
    ],
)
def test_a_mistake_is_told_without_the_password(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as error:
        broker_address(url, Settings())
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("more", ["", ";sentinel://b"])
def test_celery_can_show_its_settings_without_passwords(more: str) -> None:
    url = f"sentinel://:dont-tell@a{more}?master_name=yard&sentinel_password=hidden"
    with make_app("test", url, current=False) as app:
        shown = str(app.conf.table(with_defaults=True, censored=True))

    assert "yard" in shown
    assert "dont-tell" not in shown
    assert "hidden" not in shown
