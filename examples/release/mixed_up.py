"""Train the intent classifier on data in which two intents changed places, as by a spreadsheet sorted by one column."""

import importlib.util
import sys
from pathlib import Path

TRAIN = Path(__file__).resolve().parent.parent / "intent" / "train.py"
MIXED_UP = {"set_alarm": "weather", "weather": "set_alarm"}


def main() -> int:
    spec = importlib.util.spec_from_file_location("intent_train", TRAIN)
    assert spec is not None
    assert spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = train
    spec.loader.exec_module(train)
    read = train.read

    def mixed_up(name: str) -> list[tuple[str, str]]:
        return [(MIXED_UP.get(label, label), sentence) for label, sentence in read(name)]

    train.read = mixed_up  # type: ignore[attr-defined]  # a script, loaded by its path
    status: int = train.main()
    return status


if __name__ == "__main__":
    sys.exit(main())
