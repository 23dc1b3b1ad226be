"""In CI nothing skips, and at a desk a skip stays a skip."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

SKIPS = {
    "a test": "import pytest\ndef test_it():\n    pytest.skip('no browser')\n",
    "a mark": "import pytest\n@pytest.mark.skip('no browser')\ndef test_it(): ...\n",
    "a file": "import pytest\npytest.skip('no browser', allow_module_level=True)\n",
}


def run(file: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no_skips", "-p", "no:cacheprovider"),
            *("-rs", "--rootdir", str(file.parent), str(file)),
        ],
        env={"PYTHONPATH": str(TESTS), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("source", SKIPS.values(), ids=SKIPS)
def test_a_skip_fails_where_ci_is_set(tmp_path: Path, source: str) -> None:
    file = tmp_path / "test_example.py"
    file.write_text(source)

    ran = run(file, CI="true")

    assert ran.returncode != 0
    assert "nothing may be skipped in CI" in ran.stdout
    assert "no browser" in ran.stdout


def test_a_skip_is_a_skip_at_a_desk_and_an_expected_failure_is_none(tmp_path: Path) -> None:
    file = tmp_path / "test_example.py"
    file.write_text(
        SKIPS["a test"] + "@pytest.mark.xfail\ndef test_expected():\n    raise ValueError\n"
    )

    assert "1 skipped, 1 xfailed" in run(file).stdout
    file.write_text(
        "import pytest\n@pytest.mark.xfail\ndef test_expected():\n    raise ValueError\n"
    )
    assert run(file, CI="true").returncode == 0
