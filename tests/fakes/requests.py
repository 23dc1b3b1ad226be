"""Requests of all kinds, for properties of what a provider makes of them."""

from typing import Any

from hypothesis import strategies as st
from pydantic import ValidationError

from modelyard.messages import Request

PNG = "data:image/png;base64,iVBORw0KGgo="

_words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_said = _words.map(lambda word: f"so {word}")
_names = st.sampled_from(["weather", "find_train", "is it", ""])
_ids = st.one_of(st.sampled_from(["call_1", "call_2", "functions.f:0"]), st.text(max_size=70))
_arguments = st.sampled_from(['{"city": "Bern"}', "{}", "", "[1]", "{broken"])
_urls = st.sampled_from(
    [
        PNG,
        "data:image/jpg;base64,/9j/",
        "data:image/bmp;base64,Qk0=",
        "data:image/png;base64,?",
        "https://images.example/a.png",
        "http://images.example/a.png",
    ]
)
_images = st.fixed_dictionaries(
    {"url": _urls}, optional={"detail": st.sampled_from(["auto", "low", "high"])}
).map(lambda image: {"type": "image_url", "image_url": image})
_parts = st.lists(
    st.one_of(_words.map(lambda text: {"type": "text", "text": text}), _images), max_size=3
)
_contents = st.one_of(_words, _parts)
_foreign = st.one_of(
    st.none(),
    st.just({"vertex:another:gemini": {"thoughtSignature": "c2ln", "thinking": [{}]}}),
    st.just({"": {"reasoningContent": [{}]}, "openai:x:y": [1]}),
)
_calls = st.lists(
    st.builds(
        lambda id, name, arguments, opaque: {
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
            "opaque": opaque,
        },
        _ids,
        _names,
        _arguments,
        _foreign,
    ),
    max_size=2,
)
_turns = st.one_of(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user"]),
            "content": _contents,
            "name": st.sampled_from([None, None, "ann"]),
        }
    ),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": _contents}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": _contents, "tool_calls": _calls}
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "content": _contents, "tool_call_id": _ids}),
)


def _exchange(said: str, ids: list[str], answer: str, late: bool) -> list[dict[str, Any]]:
    """A question, calls of tools, their results and an answer, as they have to be."""
    function = {"name": "weather", "arguments": '{"city": "Bern"}'}
    calls = [{"id": id, "type": "function", "function": function} for id in ids]
    results = [{"role": "tool", "content": answer, "tool_call_id": id} for id in ids]
    more = [{"role": "user", "content": said}] if late else []
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": answer},
        {"role": "user", "content": said},
        {"role": "assistant", "content": answer, "tool_calls": calls},
        *more,
        *results,
        {"role": "user", "content": [{"type": "text", "text": said}, *map(_shown, more)]},
    ]
    return turns


def _shown(_: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": PNG}}


_exchanges = st.builds(
    _exchange, _said, st.lists(_ids.filter(bool), max_size=2, unique=True), _words, st.booleans()
)
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 300), st.floats(-1, 2), _words),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(_words, inner, max_size=2)
    ),
    max_leaves=4,
)
_schema = st.sampled_from([{"type": "object", "properties": {"city": {"type": "string"}}}, {}])
_tool = st.fixed_dictionaries(
    {"name": _names},
    optional={"description": _words, "parameters": _schema, "strict": st.booleans()},
).map(lambda function: {"type": "function", "function": function})
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
_good: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.integers(1, 5000),
    "temperature": st.floats(0, 1),
    "top_p": st.floats(0, 1),
    "stop": st.one_of(_said, st.lists(_said, max_size=3)),
    "n": st.just(1),
    "seed": st.none(),
    "logprobs": st.just(False),
    "stream": st.booleans(),
    "tool_choice": st.sampled_from(
        ["auto", "required", {"type": "function", "function": {"name": "weather"}}]
    ),
    "parallel_tool_calls": st.just(True),
    "reasoning_effort": st.sampled_from(["low", "medium", "high", "xhigh", "max"]),
    "response_format": st.sampled_from(
        [
            {"type": "text"},
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        ]
    ),
    "user": st.text("abc-123", max_size=20),
    "service_tier": st.sampled_from(["auto", "default"]),
}
_wild = {
    **{name: st.one_of(values, _json) for name, values in _good.items()},
    "tools": st.one_of(st.lists(_tool, max_size=2), _json),
    "tool_choice": st.one_of(st.just("none"), _good["tool_choice"], _json),
    "max_completion_tokens": _json,
    "seed": _json,
    "logprobs": _json,
    "n": _json,
    "metadata": st.one_of(st.dictionaries(_words, _words, max_size=2), _json),
    "frequency_penalty": _json,
    "parallel_tool_calls": _json,
    "top_k": st.integers(0, 100),
    "prediction": _json,
}


def _request(messages: list[dict[str, Any]], params: dict[str, Any]) -> Request | None:
    try:
        return Request.model_validate({"messages": messages, "params": params})
    except ValidationError:
        return None


def good_requests() -> st.SearchStrategy[Request]:
    """Requests of which a provider with the usual abilities has nothing to refuse."""
    params = st.fixed_dictionaries({"tools": st.just([WEATHER])}, optional=_good)
    return st.builds(_request, _exchanges, params).filter(bool).map(_there)


def any_requests() -> st.SearchStrategy[Request]:
    """Requests of all kinds, as long as they are requests."""
    messages = st.one_of(st.lists(_turns, min_size=1, max_size=5), _exchanges)
    params = st.fixed_dictionaries({}, optional=_wild)
    return st.builds(_request, messages, params).filter(bool).map(_there)


def broken(whole: Any) -> st.SearchStrategy[Any]:
    """The JSON value `whole`, with something else in some of its places."""
    if isinstance(whole, dict):
        inner = {key: broken(value) for key, value in whole.items()}
        same: st.SearchStrategy[Any] = st.fixed_dictionaries({}, optional=inner)
    elif isinstance(whole, list):
        same = st.tuples(*map(broken, whole)).map(list)
    else:
        same = st.just(whole)
    return st.integers(0, 9).flatmap(lambda n: _json if n == 0 else same)


def _there(request: Request | None) -> Request:
    assert request is not None
    return request
