"""Sessions of one tenant are not another's, whatever both are called."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.names import session_key

NAMES = st.text(st.sampled_from("ab:1"), max_size=4)


def test_a_colon_does_not_move_between_a_tenant_and_a_session() -> None:
    assert session_key("a", "b:c") != session_key("a:b", "c")


@given(NAMES, NAMES, NAMES, NAMES)
def test_keys_are_equal_only_if_both_names_are(a: str, b: str, c: str, d: str) -> None:
    assert (session_key(a, b) == session_key(c, d)) is ((a, b) == (c, d))
