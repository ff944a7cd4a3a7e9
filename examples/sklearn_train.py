"""A classifier of scikit-learn as a run: a search for its parameters in worker processes, then epochs of `partial_fit`.

    python examples/sklearn_train.py --epochs 5 --jobs 2

The workers of joblib are children of this process, so what they use is in the span `search` without a line in them.
An estimator that has one `fit` has no epochs; a `carbon_span` around it, or `@track`, is all there is to say then.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GridSearchCV, train_test_split

from carbon_exporter import CarbonRun, carbon_span


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes that search")
    parser.add_argument("--passes", type=int, default=10, help="over the data in each epoch")
    given = parser.parse_args()
    with CarbonRun(epochs=given.epochs, model="sgd", dataset="digits") as run:
        with carbon_span("prepare"):
            images, digits = load_digits(return_X_y=True)
            seen, unseen, answers, unseen_answers = train_test_split(images / 16, digits, random_state=1)
        with carbon_span("search"):
            choices = {"alpha": [1e-5, 1e-4, 1e-3, 1e-2]}
            search = GridSearchCV(SGDClassifier(random_state=1), choices, n_jobs=given.jobs, cv=3)
            search.fit(seen, answers)
        model = SGDClassifier(random_state=1, **search.best_params_)
        for _ in run.epochs(range(given.epochs)):
            for _ in range(given.passes):
                model.partial_fit(seen, answers, classes=np.arange(10))
            run.record(accuracy=model.score(unseen, unseen_answers))
    print(f"best {search.best_params_}, accuracy {model.score(unseen, unseen_answers):.3f}")


if __name__ == "__main__":
    main()
