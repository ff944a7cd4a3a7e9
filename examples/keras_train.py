"""A small training with Keras 3: what each epoch cost, in its history.

    KERAS_BACKEND=torch python examples/keras_train.py --epochs 5
    KERAS_BACKEND=torch python examples/keras_train.py --epochs 50 --budget "1 Wh" --checkpoint last.keras

Two lines are ours: the import, and the callback.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

from carbon_exporter import BudgetExceeded
from carbon_exporter.integrations.keras import CarbonCallback


def network(learning_rate: float) -> keras.Model:
    """Whether a point lies within a circle."""
    layers = [keras.layers.Input((2,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(layers, name="disc")
    model.compile(keras.optimizers.Adam(learning_rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--budget", metavar="AMOUNT", help='such as "1 Wh" or "5 g"')
    parser.add_argument("--checkpoint", default="last.keras", metavar="FILE")
    arguments = parser.parse_args()
    points = np.random.default_rng(1).normal(size=(arguments.rows, 2)).astype("float32")
    labels = (np.linalg.norm(points, axis=1) < 1).astype("float32")
    carbon = CarbonCallback(dataset="disc", batch_size=64, budget=arguments.budget, on_exceed="stop")
    callbacks = [carbon, keras.callbacks.ModelCheckpoint(arguments.checkpoint)]
    model = network(0.01)
    try:
        model.fit(
            points,
            labels,
            batch_size=64,
            epochs=arguments.epochs,
            validation_split=0.1,
            callbacks=callbacks,
            verbose=0,
        )
    except BudgetExceeded as exceeded:
        print(f"{exceeded.reason}; {arguments.checkpoint} has what was learnt")
    print("kWh until the end of each epoch:", *(f"{kwh:.3g}" for kwh in model.history.history["energy_kwh"]))


if __name__ == "__main__":
    main()
