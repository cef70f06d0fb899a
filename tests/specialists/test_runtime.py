"""ONNX Runtime as it is imported here: it reports nothing, and leaves nothing behind, unless that is wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os
import numpy as np
import specialists
model = specialists.OnnxModel({path!r})
model.run_sync(x=np.ones((1, 3), np.float32))
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


@pytest.mark.parametrize("wanted", [False, True])
def test_nothing_is_reported_unless_that_is_wanted(double: Path, tmp_path: Path, wanted: bool) -> None:
    home = tmp_path / "home"
    home.mkdir()
    silent = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    asked = {"ORT_DISABLE_TELEMETRY": "0"} if wanted else {}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(path=str(double))],
        env=silent | asked | {"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("0\n" if wanted else "1\n")
    if not wanted:
        assert not [path for path in home.rglob("*") if "Microsoft" in path.parts]
