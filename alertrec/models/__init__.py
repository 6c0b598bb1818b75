"""The algorithms, one a file, behind one small protocol; `make_model` makes one by its name."""

from __future__ import annotations

import inspect
from typing import Any

from alertrec.errors import DataError
from alertrec.models.base import AlertModel
from alertrec.models.boosting import Boosting
from alertrec.models.cooccurrence import Cooccurrence
from alertrec.models.ensemble import Ensemble
from alertrec.models.knn import KNeighbours
from alertrec.models.linear import Linear
from alertrec.models.neural import Neural
from alertrec.models.popularity import Popularity

_CLASSES: tuple[Any, ...] = (Popularity, KNeighbours, Cooccurrence, Linear, Boosting, Neural, Ensemble)
MODELS: dict[str, Any] = {model.name: model for model in _CLASSES}


def make_model(name: str, random_state: int = 0, **parameters: Any) -> AlertModel:
    """Return a model, not fitted yet.

    Parameters
    ----------
    name : "popularity", "knn", "cooccurrence", "linear", "boosting", "neural" or "ensemble"
    random_state : int
        The same data and the same number give the same model.
    **parameters
        What the class of the model takes.

    Raises
    ------
    DataError
        If there is no model of this name, or it takes no such parameter.
    """
    if name not in MODELS:
        raise DataError(f"there is no model {name!r}; there are {', '.join(MODELS)}")
    takes = inspect.signature(MODELS[name]).parameters
    unknown = sorted(set(parameters) - set(takes))
    if unknown:
        raise DataError(f"{name} takes no {', '.join(unknown)}; it takes {', '.join(takes)}")
    model: AlertModel = MODELS[name](random_state=random_state, **parameters)
    return model
