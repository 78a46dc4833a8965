"""Train a small model of flowers, measure it on flowers that it has not seen, and leave it in a directory."""

import argparse
from pathlib import Path

import joblib
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

MODELS: dict[str, ClassifierMixin] = {
    "1.0": make_pipeline(StandardScaler(), LogisticRegression()),
    "2.0": DecisionTreeClassifier(max_depth=1, random_state=0),  # one question cannot tell three flowers apart
}


def main() -> None:
    """Train the version that is named, and write `model.joblib`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", choices=sorted(MODELS))
    parser.add_argument("directory", type=Path)
    given = parser.parse_args()
    flowers = load_iris()
    names = flowers.target_names[flowers.target]
    train_x, test_x, train_y, test_y = train_test_split(flowers.data, names, random_state=0, stratify=names)
    model = MODELS[given.version].fit(train_x, train_y)
    print(f"flowers {given.version}: {model.score(test_x, test_y):.0%} of {len(test_x)} unseen flowers are right")
    given.directory.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, given.directory / "model.joblib")


if __name__ == "__main__":
    main()
