"""How the answers of an ensemble become one."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.combine import Combined, combine, load, problems, vote
from model_workers.gist import gist
from modelyard.catalog import Catalog
from modelyard.errors import ModelyardError
from modelyard.messages import Draft
from modelyard.plan import Combine


def drafts(*texts: str, finish_reason: str = "stop") -> list[Draft]:
    return [
        Draft(
            model=f"m{number}",
            provider_model=f"p{number}",
            text=text,
            finish_reason=finish_reason if number == len(texts) else "stop",
        )
        for number, text in enumerate(texts, 1)
    ]


# Functions of a plan


def longest(answers: Sequence[Draft]) -> str:
    return max((answer.text for answer in answers), key=len)


def leaving(answers: Sequence[Draft]) -> str:
    raise SystemExit(answers[0].text)


def broken(answers: Sequence[Draft]) -> str:
    raise KeyError(answers[0].text)


def count(answers: Sequence[Draft]) -> int:
    return len(answers)


async def later(answers: Sequence[Draft]) -> str:
    return ""


NO_FUNCTION = 3
HERE = __name__


@pytest.mark.parametrize(
    ("texts", "winner"),
    [
        (("Paris", "London", "paris."), "m1"),
        (("London", "Paris", "**Paris**"), "m2"),
        (("It is 41", "42", "The answer is 42.0."), "m2"),
        (('{"a": 1}', '{"a":2}', '```json\n{"a": 2.0}\n```'), "m2"),
        (("a", "b", "b", "a"), "m1"),
        (("a", "b", "c"), "m1"),
        (("", "", "c"), "m3"),
        (("", ""), "m1"),
        (("only",), "m1"),
    ],
)
def test_a_vote_goes_to_what_most_say_and_a_tie_to_the_earliest(
    texts: tuple[str, ...], winner: str
) -> None:
    answers = drafts(*texts)
    chosen = next(answer for answer in answers if answer.model == winner)
    assert combine(Combine(how="vote"), answers) == Combined.of(chosen)
    assert Combined.of(chosen).provider_model == f"p{winner[1:]}"


@given(st.lists(st.sampled_from(["a", "b", "c", "42", "42.0", ""]), min_size=1, max_size=9))
def test_nobody_has_more_votes_than_the_winner(texts: list[str]) -> None:
    winner = vote(drafts(*texts))
    votes = Counter(gist(text) for text in texts if text)
    assert votes[gist(winner.text)] == max(votes.values(), default=0)
    assert bool(winner.text) == any(texts)


def test_concatenated_answers_stand_each_under_its_model() -> None:
    said = combine(Combine(how="concatenate"), drafts(" one\n", "two", finish_reason="length"))
    assert said.text == "## m1\n\none\n\n## m2\n\ntwo"
    assert (said.model, said.provider_model, said.finish_reason) == ("m1+m2", "p1+p2", "length")


def test_a_function_of_the_plan_combines() -> None:
    plan = Combine(how="entry_point", function=f"{HERE}:longest")
    said = combine(plan, drafts("a", "longer", "b"))
    assert said == Combined("longer", "m1+m2+m3", f"{HERE}:longest", "stop")


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (f"{HERE}:broken", "failed: KeyError"),
        (f"{HERE}:leaving", "failed: SystemExit"),
        (f"{HERE}:count", "returned no text but a int"),
        (f"{HERE}:nothing", "can't be imported: AttributeError"),
        ("no_such_module:f", "can't be imported: ModuleNotFoundError"),
        (f"{HERE}:NO_FUNCTION", "is no function but a int"),
        (f"{HERE}:later", "is async"),
        ("longest", "is not written as module:name"),
        (":longest", "is not written as module:name"),
    ],
)
def test_a_function_that_fails_is_named(function: str, wrong: str) -> None:
    with pytest.raises(ModelyardError) as caught:
        combine(Combine(how="entry_point", function=function), drafts("SECRET"))
    assert str(caught.value).startswith(f"combine.function {function!r} ")
    assert wrong in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_functions_of_a_catalog_are_told_at_the_start_of_a_worker() -> None:
    catalog = Catalog.model_validate(
        {
            "models": [{"name": "a", "provider": "extractive"}],
            "routes": {
                "default": {
                    "rules": [
                        {
                            "when": {"keywords": ["x"]},
                            "intent": "x",
                            "models": ["a"],
                            "strategy": "ensemble",
                            "combine": {"how": "entry_point", "function": f"{HERE}:longest"},
                        }
                    ],
                    "otherwise": {
                        "models": ["a"],
                        "strategy": "ensemble",
                        "combine": {"how": "entry_point", "function": "no_such_module:f"},
                    },
                }
            },
        }
    )
    (problem,) = problems(catalog)
    assert "no_such_module" in problem
    assert load(f"{HERE}:longest") is longest


def test_nothing_can_t_be_combined() -> None:
    with pytest.raises(ValueError, match="no answer"):
        combine(Combine(), [])
