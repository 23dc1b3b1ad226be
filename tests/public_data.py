"""Where public data lies that tests may read, and that is no part of this repository."""

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = Path(os.environ.get("MODELYARD_DATA") or ROOT.parent / "shared" / "data")
IS_THERE: Final = (FOLDER / "intent_clinc150_train.jsonl").is_file()
