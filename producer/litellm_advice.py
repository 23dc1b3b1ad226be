"""What to do about the keys of LiteLLM's config that have no counterpart in a catalog."""

from collections.abc import Mapping
from typing import Final

NONE: Final = "has no counterpart: left out"

_CALLBACK: Final = (
    "nothing is sent to a logging service: the decision ledger (modelyard ledger) and Flower have "
    "what there is to know"
)
_WITH_REQUEST: Final = "is not kept in the catalog: send it with each request, in its params"
_ENTRA: Final = "no token is fetched: use an api_key, whose variable may hold a token"
_AWS: Final = "belongs into the environment of the workers, under AWS's own names (AWS_...)"
_REDIS: Final = "the broker's address is in MODELYARD_BROKER_URL"
_BUDGET: Final = "is not taken over: write budgets, by tenant or route and day, in the catalog"
_CACHE: Final = "is not taken over: a route with answer_cache keeps answers"
_PEOPLE: Final = "there are no users or keys of its own: who can reach the broker can submit"
_BREAKER: Final = "is not told apart by kind of error: see the model's breaker"

QUIET: Final[Mapping[str, frozenset[str]]] = {
    "litellm_settings": frozenset({"set_verbose", "json_logs"}),
    "router_settings": frozenset({"set_verbose", "debug_level", "enable_pre_call_checks"}),
}
"""Keys that need no word: they only say how LiteLLM logs, or are always so here."""

PARAMS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("temperature", "top_p", "stop", "seed", "n", "presence_penalty", "logit_bias"),
            *("frequency_penalty", "response_format", "tools", "tool_choice", "logprobs"),
            *("reasoning_effort", "thinking", "top_k", "user", "extra_body"),
        ),
        _WITH_REQUEST,
    ),
    **dict.fromkeys(("max_budget", "budget_duration"), _BUDGET),
    **dict.fromkeys(("azure_ad_token", "tenant_id", "client_id", "client_secret"), _ENTRA),
    **dict.fromkeys(
        (
            *("aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
            *("aws_profile_name", "aws_role_name", "aws_session_name"),
        ),
        _AWS,
    ),
    "vertex_credentials": "set GOOGLE_APPLICATION_CREDENTIALS for the workers",
    "vertex_ai_credentials": "set GOOGLE_APPLICATION_CREDENTIALS for the workers",
    "stream": "see the model's key stream: whether answers come in pieces",
    "stream_timeout": "there is one timeout for a call: the model's timeout_s",
    "tags": "route by the request's metadata instead: a rule's when: {metadata: ...}",
    "mock_response": "a model of provider python can answer anything",
    "input_cost_per_second": "prices are by token: see the model's price",
    "output_cost_per_second": "prices are by token: see the model's price",
    "drop_params": "params go to the provider as they are: send what it knows",
}

ROUTER: Final[Mapping[str, str]] = {
    **dict.fromkeys(("redis_host", "redis_port", "redis_password", "redis_url"), _REDIS),
    "allowed_fails_policy": _BREAKER,
    "retry_policy": "retries are not told apart by kind of error: see the model's retry",
    "model_group_retry_policy": "retries are not told apart by kind of error: see retry",
    "retry_after": "waits grow with each retry: see the model's retry.base_s",
    "disable_cooldowns": "breakers can't be turned off: a large breaker.failures comes near it",
    "routing_strategy_args": "has no counterpart: see the model's balance",
    "routing_groups": "give each model its own balance instead",
    "enable_tag_filtering": "route by metadata instead: a rule's when: {metadata: ...}",
    "provider_budget_config": _BUDGET,
    "max_fallbacks": "all models of a route are tried, however many: shorten its list",
    "stream_timeout": "there is one timeout for a call: the model's timeout_s",
    "cache_responses": _CACHE,
    "optional_pre_call_checks": "for sessions that stay at an endpoint there is balance: sticky",
}

LITELLM: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("callbacks", "success_callback", "failure_callback", "service_callbacks"), _CALLBACK
    ),
    **dict.fromkeys(("max_budget", "budget_duration"), _BUDGET),
    "drop_params": "params go to the provider as they are: send what it knows",
    "modify_params": "params go to the provider as they are: send what it takes",
    **dict.fromkeys(("cache", "cache_params"), _CACHE),
    "turn_off_message_logging": "prompts are in no log, and in the decision ledger only with "
    "MODELYARD_LEDGER_TEXT",
}

GENERAL: Final[Mapping[str, str]] = {
    "master_key": f"{_PEOPLE}: give Redis a password, and put it into MODELYARD_BROKER_URL",
    **dict.fromkeys(("custom_auth", "enable_jwt_auth", "key_management_system"), _PEOPLE),
    **dict.fromkeys(
        ("database_url", "database_connection_pool_limit", "store_model_in_db"),
        "no database is needed: requests, answers and the ledger are in Redis, models in the "
        "catalog",
    ),
    **dict.fromkeys(
        ("alerting", "alerting_threshold"), "modelyard health says by its exit code what is wrong"
    ),
    **dict.fromkeys(
        ("background_health_checks", "health_check_interval"),
        "breakers see what fails while it is used: nothing is called to find out",
    ),
    "global_max_parallel_requests": "limits belong to models: a model's quota.concurrency",
    "max_parallel_requests": "limits belong to models: a model's quota.concurrency",
    "completion_model": "requests that name no route take the route default",
}

SECTIONS: Final[Mapping[str, str]] = {
    "environment_variables": "set these variables where the workers and the router run",
    "include": "import each of these files, and put the catalogs together",
    "guardrails": "there are no guardrails: a cascade's accept can hold an answer back",
}
