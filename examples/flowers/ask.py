"""Ask for every flower that there is, as callers would, and say of each answer whether it was right."""

import sys
from collections import Counter

from sklearn.datasets import load_iris

from marway.client import Client


def main() -> None:
    """Ask at the address given, and print how many answers of each version were right."""
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    flowers = load_iris()
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    with Client(address) as client:
        for measures, kind in zip(flowers.data, flowers.target_names[flowers.target], strict=True):
            answer = client.predict_full("flowers", measures)
            correct = answer.value == kind
            client.feedback(answer.prediction_id, correct=bool(correct), source="examples/flowers")
            asked[answer.version] += 1
            right[answer.version] += correct
    for version, number in sorted(asked.items()):
        print(f"flowers {version}: {right[version]} of {number} answers were right")


if __name__ == "__main__":
    main()
