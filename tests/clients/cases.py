"""What the clients in Python share: their environment, and a runner of cases."""

import os
import sys
import traceback
from pathlib import Path

URL, TOKEN, OTHER, MODEL = (os.environ[name] for name in ("URL", "TOKEN", "OTHER", "MODEL"))
SCRATCH = Path(os.environ["SCRATCH"])
PICTURES = Path(__file__).resolve().parent.parent / "pictures"
PNG = b"\x89PNG\r\n\x1a\n"


def run(cases):
    """Calls every function `case_*`, and exits with 1 if one of them raises."""
    wrong = 0
    cases = [case for name, case in cases.items() if name.startswith("case_")]
    for case in cases:
        try:
            case()
        except BaseException:
            wrong += 1
            print(f"--- {case.__name__}")
            traceback.print_exc(file=sys.stdout)
    print(f"{len(cases)} cases, {wrong} wrong")
    sys.exit(wrong != 0)


def raises(kind, call, *words):
    """The exception of a kind that a call raises; its text has these words."""
    try:
        call()
    except kind as error:
        assert all(word in str(error) for word in words), str(error)
        return error
    raise AssertionError(f"nothing was raised, expected {kind.__name__}")
