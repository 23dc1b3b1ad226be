"""Gemini on Vertex AI, or behind the Gemini API: `POST .../MODEL:generateContent`.

Where a call goes to, and by which right. A `base_url` that ends with a version keeps it; otherwise
it is `api_version`, or v1 (v1beta for the Gemini API, v1beta1 for a model optimizer).

| endpoint | address after the version | right |
| --- | --- | --- |
| `project`, `region` | `projects/P/locations/R/publishers/google/models/M` | see below |
| neither, and a key | `publishers/google/models/M` (express mode) | `x-goog-api-key` |
| generativelanguage.googleapis.com, or v1beta | `models/M` (Gemini API) | `x-goog-api-key` |

An `api_key` that begins with `ya29.` is sent as a bearer token, any other one as `x-goog-api-key`;
without one the application default credentials are used (`providers.google_token`). A `model` that
begins with `publishers/` or `endpoints/` stands for the part after the location, and one that
begins with `projects/`, `models/` or `tunedModels/` for the whole; `google/M` is `M`.

What becomes of a request. What is not in this table is refused, and never quietly left out.

| request | generateContent |
| --- | --- |
| system and developer turns | `systemInstruction`, wherever they stand |
| user, assistant | roles user and model; a turn that says nothing is left out |
| `tool_calls`, tool turns | `functionCall`; `functionResponse` in the order of the calls |
| images | `inlineData`; `fileData` for https:// and gs:// with an extension that tells the type |
| `detail` low or high, of all images | `generationConfig.mediaResolution` |
| `max_completion_tokens`, `max_tokens` | `generationConfig.maxOutputTokens`; thoughts are in it |
| `temperature` 0 to 2, `top_p`, `top_k`, `seed` | `temperature`, `topP`, `topK`, `seed` |
| `stop`, up to 5 | `stopSequences` |
| `frequency_penalty`, `presence_penalty` | `frequencyPenalty`, `presencePenalty` |
| `n` up to 8 | `candidateCount`; the answer is the first |
| `logprobs`, `top_logprobs` | `responseLogprobs`, `logprobs` |
| `response_format` json_object, json_schema | `responseMimeType`, `responseJsonSchema` |
| `reasoning_effort`, Gemini 3 and later | `thinkingConfig.thinkingLevel`; none is refused |
| `reasoning_effort`, Gemini 2 | `thinkingConfig.thinkingBudget` |
| `model_selection` quality, balanced, cost | `modelConfig.featureSelectionPreference` |
| `tools` of type function | `functionDeclarations`; Google's own (`googleSearch`) as they are |
| `tool_choice` auto, required, none, a function | `functionCallingConfig` AUTO, ANY, NONE |
| `strict` of a function, with auto | `functionCallingConfig` VALIDATED |
| `generationConfig`, `safetySettings`, `labels` and the rest of `gemini_call.NATIVE` | as is |
| `user`, `metadata`, `logit_bias`, `parallel_tool_calls` false, `name`, ... | refused |

Of an answer's thoughts the count is kept, and the signature that comes with a call of a tool: it
goes back with that call (`providers.opaque`). A first call of a turn without a signature of this
very model gets the word that Google has for calls which it did not make, from Gemini 3 on.

What a failed call means; the first that fits counts.

| what came | kind |
| --- | --- |
| 429 that names a limit per day, used up credits, a spending limit, or a closed bill | DENIED |
| 429 RESOURCE_EXHAUSTED | LIMITED, with the wait of its RetryInfo |
| 400 that speaks of the count of tokens or the size of the request, 413 | TOO_LONG |
| 401, 402, 403, 404; 400 for a wrong API key; 400 FAILED_PRECONDITION | DENIED |
| 408, 409, 425, 499, 5xx | RETRYABLE |
| other 4xx, 3xx | PERMANENT |
| 200 with `promptFeedback.blockReason` | REFUSED |
| 200 without text, for SAFETY, RECITATION, BLOCKLIST, PROHIBITED_CONTENT, SPII ... | REFUSED |
| 200 with MALFORMED_FUNCTION_CALL, UNEXPECTED_TOOL_CALL, MALFORMED_RESPONSE | RETRYABLE |
| 200 without text at MAX_TOKENS | PERMANENT |
| 200 without text otherwise, half a stream | RETRYABLE |

Reference: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference,
https://ai.google.dev/api/generate-content and, for the model optimizer,
https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1beta1/GenerationConfig
"""

import re
from collections.abc import Mapping
from typing import Final

import httpx

from model_workers.providers.base import Completion, Failure
from model_workers.providers.gemini_answer import read_response
from model_workers.providers.gemini_call import encode_call
from model_workers.providers.google_token import GoogleToken
from model_workers.providers.opaque import author
from model_workers.providers.over_http import Dialect, OverHttp, Signer
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request

GEMINI_API: Final = "generativelanguage.googleapis.com"
TOKEN_PREFIX: Final = "ya29."  # noqa: S105 - how each of Google's access tokens begins
OPTIMIZER: Final = "model-optimizer"

_VERSION: Final = re.compile(r"/(v\d+(?:(?:alpha|beta)\d*)?)$")
_REGION: Final = re.compile(r"([a-z0-9-]+)-aiplatform\.googleapis\.com")
_WHOLE: Final = ("projects", "models", "tunedModels")
_LOCAL: Final = ("publishers", "endpoints")


class VertexDialect(Dialect):
    """generateContent of one model. Implements `model_workers.providers.over_http.Dialect`."""

    def __init__(self, model: Model, endpoint: Endpoint) -> None:
        self._model = model
        self._author = author(model)
        self._endpoint = endpoint
        self._key = endpoint.api_key.get_secret_value() if endpoint.api_key else ""
        self._selects = OPTIMIZER in model.provider_model

    def address(self, base: httpx.URL) -> httpx.URL:
        """Raises `ProviderError` if it can't be told which project is called."""
        path = base.path.rstrip("/")
        said = _VERSION.search(path)
        is_gemini_api = base.host == GEMINI_API or (said is not None and said[1] == "v1beta")
        if said is None:
            usual = "v1beta" if is_gemini_api else "v1beta1" if self._selects else "v1"
            path = f"{path}/{self._endpoint.api_version or usual}"
        what = "streamGenerateContent" if self._model.stream else "generateContent"
        url = base.copy_with(path=f"{path}/{self._resource(base.host, is_gemini_api)}:{what}")
        return url.copy_merge_params({"alt": "sse"}) if self._model.stream else url

    def headers(self, base: httpx.URL) -> Mapping[str, str]:
        if not self._key:
            return {}
        if self._key.startswith(TOKEN_PREFIX):
            return {"authorization": f"Bearer {self._key}"}
        return {"x-goog-api-key": self._key}

    def encode(self, request: Request) -> bytes:
        model = self._model.provider_model
        return encode_call(model, request, selects=self._selects, by=self._author)

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Completion | Failure:
        model = self._model.provider_model
        return read_response(status, headers, body, model, now, by=self._author)

    def _resource(self, host: str, is_gemini_api: bool) -> str:
        name = self._model.provider_model.strip("/")
        kind, slash, rest = name.partition("/")
        if slash and kind in _WHOLE:
            return name
        if slash and kind not in _LOCAL:
            name, kind = f"publishers/{kind}/models/{rest}", "publishers"
        if is_gemini_api:
            return f"models/{name.rsplit('/', 1)[-1]}"
        if not slash:
            name = f"publishers/google/models/{name}"
        if self._endpoint.project:
            found = _REGION.fullmatch(host)
            location = self._endpoint.region or (found[1] if found else "global")
            return f"projects/{self._endpoint.project}/locations/{location}/{name}"
        if kind == "endpoints" or not self._key or self._key.startswith(TOKEN_PREFIX):
            raise ProviderError(
                FailureKind.PERMANENT,
                f"model {self._model.name!r}: Vertex AI is called in a project: give the endpoint "
                "`project` and `region`, or an API key",
            )
        return name


class Vertex(OverHttp):
    """Calls one model at one endpoint: `OverHttp` in `VertexDialect`.

    Raises what `OverHttp` does, and `ProviderError` if the endpoint has neither project nor key.
    """

    dialect = VertexDialect

    @staticmethod
    def signer(endpoint: Endpoint) -> Signer | None:
        return None if endpoint.api_key else GoogleToken()
