from __future__ import annotations

import numpy as np
import pytest

from alertrec.models.inputs import Inputs, mean_and_scale, signed_log


def amounts(n_users: int = 500) -> np.ndarray:
    """Return a column of amounts, one of balances around 0, and one of a habit that is as it is."""
    rng = np.random.default_rng(0)
    return np.column_stack(
        [rng.lognormal(5, 1.5, n_users), rng.lognormal(6, 2, n_users) * -1, rng.normal(3, 2, n_users)]
    )


def test_amounts_enter_by_their_logarithm_and_what_is_symmetric_does_not():
    assert Inputs().fit(amounts()).is_log_.tolist() == [True, True, False]


def test_inputs_have_mean_nought_and_deviation_one():
    found = Inputs().fit(amounts()).transform(amounts())
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=1e-12)


def test_a_column_worked_by_hand():
    # 0, 1 and 2 are symmetric as they are: mean 1, variance (1 + 0 + 1) / 3.
    inputs = Inputs().fit(np.array([[0.0], [1.0], [2.0]]))
    assert inputs.is_log_.tolist() == [False]
    step = np.sqrt(3 / 2)
    np.testing.assert_allclose(inputs.transform(np.array([[1.0], [2.0], [-1.0]])), [[0.0], [step], [-2 * step]])


def test_powers_enter_as_their_exponents():
    # log(1 + x) of these is 0, 1 and 2 times log 10.
    inputs = Inputs().fit(np.array([[0.0], [9.0], [99.0]]))
    assert inputs.is_log_.tolist() == [True]
    step = np.sqrt(3 / 2)
    np.testing.assert_allclose(inputs.transform(np.array([[9.0], [99.0], [999.0]])), [[0], [step], [2 * step]])


@pytest.mark.parametrize("values", [[0.0, 0.0, 1.0], [5.0, 5.0, 5.0], [7.0]], ids=str)
def test_what_the_logarithm_makes_no_more_symmetric_enters_as_it_is(values: list[float]):
    # Two values are as asymmetric by any scale, but for rounding; one value is not asymmetric.
    column = np.array(values)[:, None]
    found = Inputs().fit(column).transform(column)
    _, deviation = mean_and_scale(column)
    np.testing.assert_allclose(found, (column - column.mean()) / deviation, atol=1e-9)


def test_the_unknown_is_the_mean_and_a_column_tells_where():
    features = np.array([[1.0, 4.0], [np.nan, 6.0], [3.0, 5.0], [2.0, np.nan], [2.0, 5.0]])
    found = Inputs().fit(features).transform(features)
    assert found.shape == (5, 4)
    assert found[1, 0] == found[3, 1] == 0
    assert found[:, 2].tolist() == [0, 1, 0, 0, 0]
    assert found[:, 3].tolist() == [0, 0, 0, 1, 0]
    assert not np.isnan(found).any()


def test_what_was_known_of_all_in_training_and_is_not_now_is_the_mean():
    found = Inputs().fit(np.array([[1.0], [3.0]])).transform(np.array([[np.nan]]))
    assert found.tolist() == [[0.0]]


def test_what_nobody_has_is_nought_also_for_who_has_it():
    inputs = Inputs().fit(np.full((3, 1), np.nan))
    assert inputs.transform(np.full((2, 1), np.nan)).tolist() == [[0.0, 1.0]] * 2
    assert np.isfinite(inputs.transform(np.array([[1e9]]))).all()


def test_what_never_varies_is_nought():
    # The mean of many times 0.1 is not 0.1 in floats.
    column = np.full((1000, 1), 0.1)
    np.testing.assert_allclose(Inputs().fit(column).transform(column), 0, atol=1e-9)


def test_nobody_is_further_off_than_five_deviations():
    features = amounts()
    inputs = Inputs().fit(features)
    found = inputs.transform(np.array([[1e100, -1e100, 1e100], [-1e100, 1e100, -1e100]]))
    assert found.tolist() == [[5, -5, 5], [-5, 5, -5]]


def test_the_logarithm_knows_debts_and_nought():
    np.testing.assert_allclose(
        signed_log(np.array([[0.0, np.e - 1, 1 - np.e, 999.0, -999.0]])), [[0, 1, -1, np.log(1000), -np.log(1000)]]
    )
    assert np.isnan(signed_log(np.array([[np.nan]]))).all()


def test_more_stays_more():
    features = amounts()
    found = Inputs().fit(features).transform(features)
    for column in range(3):
        order = np.argsort(features[:, column])
        assert (np.diff(found[order, column]) >= 0).all()


def test_means_and_scales_leave_out_what_is_unknown():
    # Of 1 and 3: mean 2, deviation 1. Of 4 thrice, a constant. Of nothing at all, mean 0.
    features = np.array([[1.0, 4.0, np.nan], [np.nan, 4.0, np.nan], [3.0, 4.0, np.nan]])
    mean, scale = mean_and_scale(features)
    assert mean.tolist() == [2.0, 4.0, 0.0]
    assert scale.tolist() == [1.0, 1.0, 1.0]


def test_what_varies_by_rounding_only_has_scale_one():
    _, scale = mean_and_scale(np.full((1001, 1), 0.1) * np.array([1.0, 1e9, 1e-9]))
    assert scale.tolist() == [1.0, 1.0, 1.0]


def test_arrays_bring_inputs_back():
    features = amounts()
    features[::7, 0] = np.nan
    inputs = Inputs().fit(features)
    again = Inputs.from_arrays(inputs.to_arrays())
    np.testing.assert_array_equal(again.transform(features), inputs.transform(features))


def test_what_is_given_stays_as_it_was():
    features = amounts()
    features[::7, 0] = np.nan
    features.setflags(write=False)
    Inputs().fit(features).transform(features)


def test_no_column_and_no_user_are_no_error():
    assert Inputs().fit(np.empty((4, 0))).transform(np.empty((4, 0))).shape == (4, 0)
    assert Inputs().fit(amounts()).transform(np.empty((0, 3))).shape == (0, 3)
