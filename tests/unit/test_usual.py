from __future__ import annotations

import numpy as np

from alertrec.rules.usual import UsualDials, lower_medians

NAN = np.nan


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float).reshape(-1, 1)


def test_the_lower_median_is_one_of_the_values():
    # Of twenty values the tenth smallest, of twenty-one the eleventh.
    assert lower_medians(column(*range(20, 0, -1))).tolist() == [10]
    assert lower_medians(column(*range(21, 0, -1))).tolist() == [11]


def test_of_fewer_than_twenty_nothing_is_told():
    np.testing.assert_array_equal(lower_medians(column(*range(19))), [NAN])
    assert lower_medians(column(*range(20))).tolist() == [9]


def test_only_those_who_have_a_value_are_counted():
    # Twenty of thirty have one: the tenth of them.
    assert lower_medians(column(*[NAN] * 5, *range(1, 21), *[NAN] * 5)).tolist() == [10]
    np.testing.assert_array_equal(lower_medians(column(*[NAN] * 30, *range(19))), [NAN])
    np.testing.assert_array_equal(lower_medians(column(*[NAN] * 30)), [NAN])


def test_each_column_has_a_median_of_its_own():
    dials = np.column_stack([np.arange(20.0), np.full(20, NAN), np.full(20, 500.0)])
    dials[0, 2] = 100.0
    np.testing.assert_array_equal(lower_medians(dials), [9, NAN, 500])


def test_of_nobody_nothing_is_told():
    np.testing.assert_array_equal(lower_medians(np.empty((0, 3))), [NAN] * 3)


def test_the_dials_that_came_in_stay_as_they_were():
    dials = column(*range(20, 0, -1))
    lower_medians(dials)
    assert dials.ravel().tolist() == list(range(20, 0, -1))


IDS = [f"u{n:02}" for n in range(40)]
DIALS = np.column_stack([np.arange(40.0), np.full(40, 7.0)])


def test_the_population_is_all_users_and_the_remembered_ones_keep_their_values():
    remembered = IDS[39:9:-1]
    usual = UsualDials.of(IDS, DIALS, remembered=remembered)
    assert usual.user_ids == remembered
    assert usual.dials[:, 0].tolist() == list(range(39, 9, -1))
    assert usual.population.tolist() == [19, 7]  # of 0 to 39


def test_among_some_users_only_these_count_and_only_those_who_are_remembered():
    usual = UsualDials.of(IDS, DIALS, remembered=IDS[10:])
    assert usual.among(IDS[20:40]).tolist() == [29, 7]
    assert usual.among([*IDS[20:40], "stranger", *IDS[:10]]).tolist() == [29, 7]
    # Of ten to 28, nineteen are remembered.
    np.testing.assert_array_equal(usual.among(IDS[:29]), [NAN, NAN])
    assert usual.among(IDS[:30]).tolist() == [19, 7]
    np.testing.assert_array_equal(usual.among([]), [NAN, NAN])
    np.testing.assert_array_equal(usual.among(["stranger"]), [NAN, NAN])


def test_among_users_of_whom_some_have_no_value_the_others_tell():
    dials = DIALS.copy()
    dials[0, 0] = NAN
    usual = UsualDials.of(IDS, dials, remembered=IDS)
    np.testing.assert_array_equal(usual.among(IDS[:20]), [NAN, 7])
    assert usual.among(IDS[:21]).tolist() == [10, 7]  # of 1 to 20
    assert usual.population.tolist() == [20, 7]  # of 1 to 39
