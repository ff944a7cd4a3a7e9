"""A small network trained with JAX as a run, with the energy of compiling, of each epoch and of the evaluation.

    python examples/jax_train.py --epochs 5

JAX queues work and returns before it is done. `float(loss)` waits for it, so each epoch ends when its work has; where
nothing waits, `carbon_span(..., sync=True)` does.
"""

from __future__ import annotations

import argparse
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from carbon_exporter import CarbonRun, carbon_span

Parameters = list[tuple[jax.Array, jax.Array]]


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in a plane; whether they lie within a circle is the label."""
    points = np.random.default_rng(1).standard_normal((rows, 2), dtype=np.float32)
    return points, (np.linalg.norm(points, axis=1) < 1).astype(np.float32)


def network(sizes: tuple[int, ...] = (2, 64, 64, 1)) -> Parameters:
    """Weights and biases of each layer."""
    chance = np.random.default_rng(2)
    return [
        (jnp.asarray(chance.normal(0, left**-0.5, (left, right)), jnp.float32), jnp.zeros(right))
        for left, right in itertools.pairwise(sizes)
    ]


def scores(layers: Parameters, points: jax.Array) -> jax.Array:
    """Of each point, that it lies within."""
    for weights, biases in layers[:-1]:
        points = jax.nn.relu(points @ weights + biases)
    weights, biases = layers[-1]
    return (points @ weights + biases)[:, 0]


def loss_of(layers: Parameters, points: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross entropy."""
    found = scores(layers, points)
    return jnp.mean(jnp.logaddexp(0, found) - labels * found)


@jax.jit
def epoch_of(layers: Parameters, points: jax.Array, labels: jax.Array, rate: float) -> tuple[Parameters, jax.Array]:
    """A step of gradient descent for each batch, and the mean of their losses."""

    def step(layers: Parameters, batch: tuple[jax.Array, jax.Array]) -> tuple[Parameters, jax.Array]:
        loss, slopes = jax.value_and_grad(loss_of)(layers, *batch)
        return jax.tree.map(lambda value, slope: value - rate * slope, layers, slopes), loss

    layers, losses = jax.lax.scan(step, layers, (points, labels))
    return layers, jnp.mean(losses)


@jax.jit
def accuracy_of(layers: Parameters, points: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of points that are on the right side."""
    return jnp.mean((scores(layers, points) > 0) == (labels > 0))


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=65_536, help="a multiple of the batch size")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=0.3)
    given = parser.parse_args()
    told = {"model": "mlp", "dataset": "disc", "batch_size": given.batch_size, "learning_rate": given.learning_rate}
    with CarbonRun(epochs=given.epochs, **told) as run:
        with carbon_span("compile"):
            points, labels = data(given.rows)
            batches = (points.reshape(-1, given.batch_size, 2), labels.reshape(-1, given.batch_size))
            layers = network()
            train = epoch_of.lower(layers, *batches, given.learning_rate).compile()
        for _ in run.epochs(range(given.epochs)):
            layers, loss = train(layers, *batches, given.learning_rate)
            run.record(loss=float(loss))
        with carbon_span("evaluate"):
            accuracy = float(accuracy_of(layers, points, labels))
            run.record(accuracy=accuracy)
    print(f"accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
