"""The tools that a request offers its model, read from OpenAI's form.

https://platform.openai.com/docs/api-reference/chat/create#chat-create-tools
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from model_workers.providers.params import Params
from model_workers.providers.turns import tool_name

_ABOUT: Final = frozenset({"name", "description", "parameters", "strict"})


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a model may call; `schema` is of what it takes, an object's."""

    name: str
    schema: Mapping[str, Any]
    description: str = ""
    strict: bool | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether the model has to call one: `named` is the one of `name`."""

    kind: Literal["auto", "required", "none", "named"]
    name: str = ""


def read_tools(
    params: Params, is_native: Callable[[Mapping[str, Any]], bool], more: frozenset[str]
) -> list[Function | Mapping[str, Any]]:
    """Take `tools`; one that the provider itself defines stays as it is.

    `more` are keys of the provider's own that may stand beside a function.
    """
    found: list[Function | Mapping[str, Any]] = []
    for number, tool in enumerate(params.array("tools")):
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
            found.append(_function(params, number, tool, more))
        elif isinstance(tool, dict) and is_native(tool):
            found.append(tool)
        else:
            raise params.wrong("tools", f"tools[{number}] is neither a function nor one of its own")
    names = [tool.name for tool in found if isinstance(tool, Function)]
    if len(set(names)) < len(names):
        raise params.wrong("tools", "two of them have the same name")
    return found


def _function(
    params: Params, number: int, tool: Mapping[str, Any], more: frozenset[str]
) -> Function:
    about = tool["function"]
    unknown = (tool.keys() - {"type", "function"} - more) | (about.keys() - _ABOUT)
    if unknown or tool.get("type", "function") != "function":
        what = min(unknown, default="type")
        raise params.wrong("tools", f"it does not know {what!r} in tools[{number}]")
    name, description, strict = about.get("name"), about.get("description"), about.get("strict")
    schema = about.get("parameters")
    if not isinstance(name, str):
        raise params.wrong("tools", f"tools[{number}] has no name")
    if not isinstance(description, str | None) or not isinstance(strict, bool | None):
        raise params.wrong("tools", f"description or strict of {name!r} is of another type")
    if not isinstance(schema, dict | None):
        raise params.wrong("tools", f"the parameters of {name!r} are no JSON schema")
    schema = {"type": "object", **(schema or {"properties": {}})}
    if schema["type"] != "object":
        raise params.wrong("tools", f"the parameters of {name!r} are no object's schema")
    return Function(
        tool_name(params.provider, name),
        schema,
        description or "",
        strict,
        {key: tool[key] for key in more if key in tool},
    )


def read_choice(
    params: Params, tools: Sequence[Function | Mapping[str, Any]]
) -> Choice | Mapping[str, Any] | None:
    """Take `tool_choice`; an object that is not OpenAI's is the provider's own, as it is."""
    asked = params.take("tool_choice")
    if asked is None:
        return None
    if not tools and asked not in ("auto", "none"):
        raise params.wrong("tool_choice", "there are no tools to choose from")
    if isinstance(asked, str) and asked in ("auto", "required", "none"):
        return Choice(asked)  # type: ignore[arg-type]
    if isinstance(asked, dict) and asked.get("type") == "function":
        function = asked.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        known = [tool.name for tool in tools if isinstance(tool, Function)]
        if isinstance(name, str) and name in known:
            return Choice("named", name)
        if isinstance(name, str):
            raise params.wrong("tool_choice", f"there is no function {name!r} among the tools")
    elif isinstance(asked, dict) and asked.get("type") not in ("allowed_tools", "custom"):
        return asked
    raise params.wrong("tool_choice", "it has to be auto, required, none or a function's name")
