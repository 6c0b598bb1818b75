from __future__ import annotations

import inspect
import json

import pytest

from alertrec import errors

EXAMPLES = (
    errors.AlertrecError("it broke"),
    errors.ConfigError("ALERTREC_X is not set"),
    errors.DataError("a column is missing"),
    errors.UnknownUserError("u1"),
    errors.UnknownRecommendationError("1b0cbb0e"),
    errors.ChangedMeanwhileError("the list was renewed"),
    errors.NotEnoughDataError(3, 40, 10, 100),
    errors.NotFittedError("not trained"),
    errors.ModelStoreError("v1", "a file is missing"),
    errors.NoChampionError(),
    errors.TransientError("the server is away"),
    errors.QueueUnavailableError("the broker did not take it"),
)
CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)]
each_example = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


def test_every_class_has_an_example_here():
    assert {type(error) for error in EXAMPLES} == set(CLASSES)


@each_example
def test_an_error_survives_the_way_to_another_process(error: errors.AlertrecError):
    # What travels is the class's name and its arguments, as JSON.
    again = type(error)(*json.loads(json.dumps(error.args)))
    assert str(again) == str(error) != ""
    assert again.args == error.args
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_says_what_it_means_and_stands_in_the_tree(error: type[Exception]):
    assert issubclass(error, errors.AlertrecError)
    assert error.__name__.endswith("Error")
    assert "__doc__" in vars(error)
    assert error.__doc__
    assert f"{error.__name__} " in errors.__doc__ or f"{error.__name__}\n" in errors.__doc__


def test_the_tree_is_the_one_that_is_drawn():
    parents = {each.__name__: each.__mro__[1].__name__ for each in CLASSES}
    assert parents == {
        "AlertrecError": "Exception",
        "ConfigError": "AlertrecError",
        "DataError": "AlertrecError",
        "UnknownUserError": "DataError",
        "UnknownRecommendationError": "DataError",
        "ChangedMeanwhileError": "DataError",
        "NotEnoughDataError": "DataError",
        "NotFittedError": "AlertrecError",
        "ModelStoreError": "AlertrecError",
        "NoChampionError": "NotFittedError",
        "TransientError": "AlertrecError",
        "QueueUnavailableError": "TransientError",
    }


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (errors.UnknownUserError("u1"), ["'u1'"]),
        (errors.NotEnoughDataError(3, 40, 10, 100), ["3 active users", "40 purchases", "10 users", "100 purchases"]),
        (errors.ModelStoreError("v1", "a file is missing"), ["v1", "a file is missing"]),
        (errors.NoChampionError(), ["alertrec train"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_message_says_what_came_and_what_to_do(error: errors.AlertrecError, facts: list[str]):
    assert [fact for fact in facts if fact not in str(error)] == []
