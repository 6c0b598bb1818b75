"""Networks of one hidden layer, several at once, trained by Adam on softmax cross-entropy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float64]  # one leading axis for the networks

# Adam as its authors set it (Kingma and Ba, 2015).
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


class Perceptrons(NamedTuple):
    """Several networks side by side; a product of stacked matrices takes hardly longer than that of one.

    Attributes
    ----------
    weights_1 : (n_networks, n_inputs, n_hidden)
    biases_1 : (n_networks, 1, n_hidden)
    weights_2 : (n_networks, n_hidden, n_outputs)
    biases_2 : (n_networks, 1, n_outputs)
    """

    weights_1: Tensor
    biases_1: Tensor
    weights_2: Tensor
    biases_2: Tensor

    @classmethod
    def drawn(cls, sizes: tuple[int, int, int, int], rng: np.random.Generator) -> Perceptrons:
        """Return networks of these numbers (networks, inputs, hidden, outputs), by Glorot's rule (2010)."""
        n, n_inputs, n_hidden, n_outputs = sizes
        bound_1, bound_2 = np.sqrt(6 / (n_inputs + n_hidden)), np.sqrt(6 / (n_hidden + n_outputs))
        return cls(
            rng.uniform(-bound_1, bound_1, (n, n_inputs, n_hidden)),
            np.zeros((n, 1, n_hidden)),
            rng.uniform(-bound_2, bound_2, (n, n_hidden, n_outputs)),
            np.zeros((n, 1, n_outputs)),
        )

    def predict(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the softmax of each row, the networks averaged; (n_rows, n_inputs) to (n_rows, n_outputs)."""
        found = np.zeros((len(rows), self.biases_2.shape[2]))
        for network in zip(*self, strict=True):
            weights_1, biases_1, weights_2, biases_2 = network
            found += _softmax(np.maximum(rows @ weights_1 + biases_1, 0) @ weights_2 + biases_2)
        return found / len(self.weights_1)

    def slopes(self, rows: Tensor, wanted: Tensor, penalty: float) -> Perceptrons:
        """Return the gradient of the mean cross-entropy plus penalty / 2 times the squared weights."""
        hidden = np.maximum(rows @ self.weights_1 + self.biases_1, 0)
        error = (_softmax(hidden @ self.weights_2 + self.biases_2) - wanted) / rows.shape[1]
        back = (error @ self.weights_2.transpose(0, 2, 1)) * (hidden > 0)
        return Perceptrons(
            rows.transpose(0, 2, 1) @ back + penalty * self.weights_1,
            back.sum(axis=1, keepdims=True),
            hidden.transpose(0, 2, 1) @ error + penalty * self.weights_2,
            error.sum(axis=1, keepdims=True),
        )


def train(
    networks: Perceptrons, batches: Iterator[tuple[Tensor, Tensor]], *, penalty: float, learning_rate: float
) -> Perceptrons:
    """Return the networks after a step of Adam on each batch: rows (n_networks, n, n_inputs), wanted likewise."""
    values = Perceptrons(*(each.copy() for each in networks))
    means, squares = [np.zeros_like(each) for each in values], [np.zeros_like(each) for each in values]
    for step, (rows, wanted) in enumerate(batches, start=1):
        rate = learning_rate * np.sqrt(1 - _BETA_2**step) / (1 - _BETA_1**step)
        for place, slope in enumerate(values.slopes(rows, wanted, penalty)):
            means[place] += (1 - _BETA_1) * (slope - means[place])
            squares[place] += (1 - _BETA_2) * (slope**2 - squares[place])
            values[place][...] -= rate * means[place] / (np.sqrt(squares[place]) + _EPSILON)
    return values


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(scores / scores.sum(axis=-1, keepdims=True))
