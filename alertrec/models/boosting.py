"""Boosted trees on behaviour and the number of other alerts, beside a weight for each of them."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import ConfigError, first_line
from alertrec.models.base import AlertMatrix, Arrays, FeatureMatrix, Rows, ScoreMatrix, refuse_below
from alertrec.models.contributions import Grouping, Parts
from alertrec.models.inputs import Inputs
from alertrec.models.linear import fit_weights
from alertrec.models.one_more import OneMore
from alertrec.models.parallel import each_alert

if TYPE_CHECKING:
    import lightgbm

_SEPARATOR = "\n===\n"


def load_lightgbm() -> ModuleType:
    """Import LightGBM.

    Raises
    ------
    ConfigError
        If the system lacks the library that its wheels expect.
    """
    try:
        import lightgbm
    except OSError as error:
        raise ConfigError(
            f"LightGBM cannot be loaded ({first_line(error)}); install the system library libgomp "
            "(on Debian and Ubuntu the package libgomp1)"
        ) from error
    return lightgbm


class Boosting(OneMore[FeatureMatrix]):
    """Log-odds of an alert = trees + an intercept + the sum of a weight for each of the other alerts.

    The weights are those of a logistic regression on the other alerts and the features; the trees are then grown on
    top of them, in place of its linear part in the features. They split on the features and on how many other alerts
    the user has: that lets behaviour count for more where alerts are few. Splitting on each of the other alerts gains
    nothing more, and every question "and without this alert?" would run all trees anew.

    Attributes
    ----------
    intercepts_ : float64 array, shape (n_contested,)
    weights_ : float64 array, shape (n_contested, n_contested)
        Row i, column j: what having alert i adds to the log-odds of alert j; the diagonal is 0.
    trees_ : one `lightgbm.Booster` a contested alert; its last input is the number of other alerts

    Parameters
    ----------
    n_rounds, learning_rate, num_leaves, min_data_in_leaf, l2 : as LightGBM has them
        Fewer users in a leaf are allowed where there are only few at all.
    penalty : float
        Of the weights, as in `Linear`.
    """

    name = "boosting"

    intercepts_: NDArray[np.float64]
    weights_: NDArray[np.float64]
    trees_: list[lightgbm.Booster]

    def __init__(
        self,
        n_rounds: int = 30,
        learning_rate: float = 0.08,
        num_leaves: int = 4,
        min_data_in_leaf: int = 20,
        l2: float = 5.0,
        penalty: float = 3.0,
        random_state: int = 0,
    ) -> None:
        refuse_below(1, n_rounds=n_rounds, min_data_in_leaf=min_data_in_leaf, num_leaves=num_leaves - 1)
        refuse_below(1e-6, learning_rate=learning_rate, penalty=penalty)
        refuse_below(0, l2=l2)
        self.n_rounds = n_rounds
        self.learning_rate = learning_rate
        self.num_leaves = num_leaves
        self.min_data_in_leaf = min_data_in_leaf
        self.l2 = l2
        self.penalty = penalty
        self.random_state = random_state

    def _learn(self, features: FeatureMatrix, labels: AlertMatrix) -> None:
        linear = fit_weights(Inputs().fit(features).transform(features), labels, penalty=self.penalty)
        self.intercepts_, self.weights_ = linear.intercepts, linear.of_alerts
        offsets = labels @ self.weights_ + self.intercepts_
        n_enabled = labels.sum(axis=1)

        def grow(alert: int) -> lightgbm.Booster:
            wanted = labels[:, alert]
            return self._grow(np.column_stack([features, n_enabled - wanted]), wanted, offsets[:, alert])

        self.trees_ = each_alert(grow, labels.shape[1])

    def _grow(self, inputs: FeatureMatrix, wanted: NDArray[np.bool_], offset: NDArray[np.float64]) -> lightgbm.Booster:
        library = load_lightgbm()
        parameters = {
            "objective": "binary",
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": max(1, min(self.min_data_in_leaf, len(inputs) // 20)),
            "min_data_in_bin": max(1, min(3, len(inputs) // 20)),
            "lambda_l2": self.l2,
            "max_bin": 63,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,  # the alerts are fitted side by side
            "seed": self.random_state,
            "verbose": -1,
        }
        data = library.Dataset(
            inputs, wanted.astype(np.float64), init_score=np.ascontiguousarray(offset), params=parameters
        )
        trees: lightgbm.Booster = library.train(parameters, data, self.n_rounds)
        return trees

    def _prepare(self, features: FeatureMatrix) -> FeatureMatrix:
        return features

    def _score(self, prepared: FeatureMatrix, users: Rows, enabled: AlertMatrix) -> ScoreMatrix:
        # A row has hardly more than two numbers of alerts: the user's, and one less. The trees run once for each.
        n_enabled = enabled.sum(axis=1)
        asked, place = np.unique(users * (enabled.shape[1] + 1) + n_enabled, return_inverse=True)
        who, how_many = np.divmod(asked, enabled.shape[1] + 1)
        inputs = np.column_stack([prepared[who], how_many])
        of_trees = np.column_stack([trees.predict(inputs, raw_score=True) for trees in self.trees_])
        return np.asarray(of_trees[place] + enabled @ self.weights_ + self.intercepts_)

    def _parts(self, features: FeatureMatrix, enabled: AlertMatrix, alert: int, grouping: Grouping) -> Parts:
        # Exact tree SHAP (Lundberg et al. 2020): a value for each input, and the expected output at the end.
        inputs = np.column_stack([features, enabled.sum(axis=1)])
        *of_features, of_number, expected = np.asarray(self.trees_[alert].predict(inputs, pred_contrib=True))[0]
        base = self.intercepts_[alert] + expected
        of_alerts = self.weights_[:, alert] * enabled[0]
        return Parts(base, grouping.sums(np.array(of_features)), of_alerts, of_number)

    def _learnt(self) -> dict[str, NDArray[Any]]:
        text = _SEPARATOR.join(trees.model_to_string() for trees in self.trees_)
        trees = np.frombuffer(text.encode(), dtype=np.uint8)
        return {"intercepts": self.intercepts_, "of_alerts": self.weights_, "trees": trees}

    def _restore(self, arrays: Arrays) -> None:
        library = load_lightgbm()
        self.intercepts_, self.weights_ = arrays["intercepts"], arrays["of_alerts"]
        texts = bytes(arrays["trees"]).decode().split(_SEPARATOR)
        self.trees_ = [library.Booster(model_str=text) for text in texts]
