"""Operations in random orders, against a model of them."""

from claims_machine import FaultyRedis, Yard
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test


def test_workers_in_any_order_do_to_a_store_what_they_do_to_its_model(client: FaultyRedis) -> None:
    class YardHere(Yard):
        pass

    YardHere.client = client
    run_state_machine_as_test(
        YardHere,
        settings=settings(
            max_examples=120,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
