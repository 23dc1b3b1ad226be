"""`python -m model_workers`: what is wrong with the catalog for workers of here, as JSON.

No model is called; functions that the catalog names are imported, and embeddings tried out.
"""

import contextlib
import json
import os
import sys

from model_workers.answer_cache import embeddings
from model_workers.complaints import complaints
from modelyard.catalog_file import load_catalog
from modelyard.settings import load_settings


def main() -> int:
    """Write `{"warnings": [...]}` to standard output."""
    stdout = sys.stdout
    # A module that is imported may print, and what is asked for here is JSON.
    with contextlib.redirect_stdout(sys.stderr):
        path = load_settings().catalog_path
        catalog = load_catalog(path, os.environ)
        told = [*complaints(catalog), *embeddings.problems(catalog, path.parent)]
    json.dump({"warnings": told}, stdout, ensure_ascii=False)
    stdout.write("\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
