"""`anthropic_beta`: what a request wants of Claude that is not for everybody yet.

Anthropic takes the names in the header `anthropic-beta`, Bedrock inside of the body. Here they are
a parameter under the name that they have in a body, `["interleaved-thinking-2025-05-14"]`.

https://platform.claude.com/docs/en/api/beta-headers
"""

import re
from typing import Final

from model_workers.providers.params import Params

PARAM: Final = "anthropic_beta"

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)


def read_betas(params: Params) -> list[str]:
    """Take the names. Raises `Unsupported` for what can't be one: a header holds no line ends."""
    betas = params.array(PARAM)
    for beta in betas:
        if not isinstance(beta, str) or not _NAME.fullmatch(beta):
            raise params.wrong(
                PARAM, 'it has to be an array of names such as "context-1m-2025-08-07"'
            )
    return list(dict.fromkeys(betas))
