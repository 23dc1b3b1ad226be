"""What a piece is asked with besides its text, and how much of that may go to Redis at once."""

import json
from typing import Any

import pytest

from model_workers.providers.anthropic_call import encode_call as anthropic_body
from model_workers.providers.bedrock_call import encode_call as bedrock_body
from model_workers.providers.gemini_call import encode_call as gemini_body
from modelyard.catalog import Model
from modelyard.messages import Request
from modelyard.pieces import MOST_ALONG_BYTES, TooLong, piece_requests, planned
from router_worker.candidates import room_for_output

REPORT = "\n\n".join(f"Day {day}. " + "The pump was stopped at noon. " * 9 for day in range(60))
WINDOW = {"context_tokens": 2_000, "reserve_tokens": 400, "most_answer_tokens": 400}
CLAUDE = Model.model_validate(
    {"name": "claude", "provider": "anthropic", "endpoints": [{"base_url": "https://a.example"}]}
)


def first_piece(**params: Any) -> tuple[Request, int]:
    """The first piece of a long request, and the limit of its answer."""
    request = Request.of(REPORT, params=params)
    pieces = planned(request, **WINDOW)
    return piece_requests(request, pieces)[0], pieces.answer_tokens


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"inferenceConfig": {"maxTokens": 9, "stopSequences": ["x"]}}, {}),
        (
            {"inferenceConfig": {"maxTokens": 9, "topP": 0.5}},
            {"inferenceConfig": {"topP": 0.5}},
        ),
        (
            {"generationConfig": {"maxOutputTokens": 9, "responseSchema": {}, "topK": 3}},
            {"generationConfig": {"topK": 3}},
        ),
        ({"generationConfig": {}}, {"generationConfig": {}}),
        ({"output_config": {"format": {"type": "json_schema"}}, "stop_sequences": ["x"]}, {}),
        ({"output_config": {"effort": "low"}}, {"output_config": {"effort": "low"}}),
        ({"outputConfig": {"textFormat": {}}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 4_000}}, {}),
        ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
        (
            {
                "additionalModelRequestFields": {
                    "thinking": {"type": "enabled", "budget_tokens": 4_000},
                    "top_k": 5,
                }
            },
            {"additionalModelRequestFields": {"top_k": 5}},
        ),
    ],
)
def test_the_form_of_the_end_is_left_out_under_the_providers_names_too(
    params: dict[str, Any], kept: dict[str, Any]
) -> None:
    piece, limit = first_piece(**params)
    assert piece.params == {**kept, "max_tokens": limit}


def test_each_dialect_takes_a_piece_of_what_has_a_limit_under_its_own_name() -> None:
    piece, limit = first_piece(inferenceConfig={"maxTokens": 900})
    assert json.loads(bedrock_body(piece))["inferenceConfig"] == {"maxTokens": limit}
    piece, limit = first_piece(generationConfig={"maxOutputTokens": 900})
    body = json.loads(gemini_body("gemini-2.5-flash", piece))
    assert body["generationConfig"]["maxOutputTokens"] == limit
    piece, limit = first_piece(thinking={"type": "enabled", "budget_tokens": 4_000})
    body = json.loads(anthropic_body(CLAUDE, piece))
    assert (body["max_tokens"], "thinking" in body) == (limit, False)


def test_parameters_that_go_with_each_piece_are_bounded_in_all() -> None:
    small = Request.of(REPORT, params={"logit_bias": {"1": 1}})
    count = planned(small, **WINDOW).count
    large = Request.of(REPORT, params={"user": "u" * (MOST_ALONG_BYTES // count)})
    with pytest.raises(TooLong, match=r"parameters among it, has [\d,]+ bytes"):
        planned(large, **WINDOW)


def test_room_is_kept_for_the_answer_under_either_name_of_its_limit() -> None:
    assert room_for_output(CLAUDE, Request.of("hi")) == CLAUDE.max_output_tokens
    for name in ("max_tokens", "max_completion_tokens"):
        assert room_for_output(CLAUDE, Request.of("hi", params={name: 77})) == 77
