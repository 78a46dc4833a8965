"""Trains the model of `handler.py`, and writes it with the requirements of its archive: `python train.py`."""

from pathlib import Path

import joblib
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

iris = load_iris()
names = [str(iris.target_names[place]) for place in iris.target]
inputs, held_out, targets, truth = train_test_split(iris.data, names, test_size=0.2, random_state=0)
model = LogisticRegression(max_iter=1000).fit(inputs, targets)
joblib.dump(model, "model.joblib")
# The file is read by the scikit-learn that wrote it: other versions may read it otherwise, or not at all.
Path("requirements.txt").write_text(f"scikit-learn=={sklearn.__version__}\n")
print(f"model.joblib written, accuracy on held-out rows {model.score(held_out, truth):.3f}")
