"""What of a request is no text counts as well where a window or a limit is looked at."""

from model_workers.endpoints.desk import expected_tokens
from modelyard.catalog import Catalog, Model
from modelyard.messages import Message, Request, ToolCall
from modelyard.request_tokens import IMAGE_TOKENS, tokens_beside_text
from router_worker.features import features
from router_worker.policy import decide

TOOL = {
    "type": "function",
    "function": {"name": "find", "description": "Finds a wagon. " * 400, "parameters": {}},
}


def test_plain_text_has_nothing_beside_it() -> None:
    request = Request.of("hello", params={"temperature": 0.5, "max_tokens": 10})
    assert tokens_beside_text(request) == 0
    assert features(request).input_tokens == 2


def test_tools_calls_and_images_count() -> None:
    call = ToolCall.of(
        "1", "find", '{"which": "' + "x" * 400 + '"}', {"m": {"signature": "y" * 80}}
    )
    picture = {"type": "image_url", "image_url": {"url": "https://a.test/x.png"}}
    request = Request(
        messages=(
            Message.model_validate({"role": "user", "content": [picture]}),
            Message(role="assistant", tool_calls=(call,)),
            Message(role="tool", content="here", tool_call_id="1"),
        ),
        params={"tools": [TOOL]},
    )
    tokens = tokens_beside_text(request)
    assert IMAGE_TOKENS + 1_500 + 100 < tokens < IMAGE_TOKENS + 2_000
    assert features(request).input_tokens >= tokens
    model = Model(name="m", provider="extractive", max_output_tokens=50)
    assert expected_tokens(model, request) >= tokens + 50


def test_a_request_whose_tools_do_not_fit_goes_to_the_model_that_holds_them() -> None:
    catalog = Catalog.model_validate(
        {
            "models": [
                {"name": "small", "provider": "extractive", "context_tokens": 1_200},
                {"name": "large", "provider": "extractive"},
            ],
            "routes": {"default": {"otherwise": ["small", "large"]}},
        }
    )

    def first(request: Request) -> str:
        return decide(request, catalog, 0.0).plan.steps[0].model

    assert first(Request.of("hello")) == "small"
    assert first(Request.of("hello", params={"tools": [TOOL]})) == "large"
