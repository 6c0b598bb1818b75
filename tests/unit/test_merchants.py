from __future__ import annotations

import polars as pl
import pytest

from alertrec.merchants import merchant_codes, merchant_key


@pytest.mark.parametrize(
    "name",
    [
        "NETFLIX.COM",
        "Netflix",
        "  netflix ",
        "NETFLIX*12345",
        "Netflix Inc",
        "Netflix, Inc.",
        "PAYPAL *NETFLIX",
        "PAYPAL *NETFLIX 4029357733",
        "PP*NETFLIX",
        "Netflix.com 866-579-7172 CA",
        "NETFLIX.COM*866-579-7172 CA",
        "Netflix.com (866) 579-7172",
        "Netflix +1 866 579 7172 Los Gatos",
        "https://www.netflix.com/account",
        "www.netflix.co.uk",
        "NETFLIX.COM/BILL WWW.NETFLIX.COM/ACCOUNT",
        "RECURRING NETFLIX.COM",
        "POS DEBIT 0314 NETFLIX",
        "Recurring payment authorized on 03/14 Netflix.com",
        "DEBIT CARD PURCHASE NETFLIX #77",
        "Netflix # 77",
        "Netflix P3F41A88",
        "Netflix 345",
    ],
)
def test_descriptors_of_one_merchant_have_one_key(name: str):
    assert merchant_key(name) == "netflix"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("7-Eleven 34321", "7-eleven"),
        ("Forever 21", "forever 21"),
        ("24 Hour Fitness 00532", "24 hour fitness"),
        ("1-800-Flowers.com", "1-800-flowers"),
        ("H&M 0123", "h&m"),
        ("McDonald's F1234", "mcdonalds"),
        ("SQ *BLUE BOTTLE #12", "blue bottle"),
        ("TST* 21 Club", "21 club"),
        ("SP ALLBIRDS", "allbirds"),
        ("GOOGLE *YouTube Premium g.co/helppay#", "google youtube premium"),
        ("AMZN Mktp US*RT4KL2", "amzn mktp us"),
        ("Müller GmbH & Co. KG", "müller"),
        ("Telefónica S.A.", "telefónica"),
        ("Tiffany and Co", "tiffany"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
    ],
)
def test_what_belongs_to_a_name_stays(name: str, key: str):
    assert merchant_key(name) == key


def test_names_that_share_a_word_are_different_merchants():
    assert merchant_key("Schaefer, Maggio and Daugherty") != merchant_key("Schaefer Ltd")
    assert merchant_key("GOOGLE *YouTube") != merchant_key("GOOGLE *Fi")
    assert merchant_key("Forever 21") != merchant_key("Forever")


@pytest.mark.parametrize("name", ["79838293", "12345678901/0800", "# 1", "***", "12345 inc", "+1 866-579-7172"])
def test_a_name_that_would_lose_its_letters_is_its_own_key(name: str):
    assert merchant_key(f" {name.upper()} ") == name


@pytest.mark.parametrize(
    ("name", "key"),
    [("Co", "co"), ("Inc Ltd", "inc"), ("S.A.", "sa"), ("PAYPAL *12345", "paypal"), ("PAYPAL *12", "paypal")],
)
def test_a_name_is_never_dressing_alone(name: str, key: str):
    assert merchant_key(name) == key


@pytest.mark.parametrize("name", [None, "", "  ", "\t\n"])
def test_a_blank_name_has_no_key(name: str | None):
    assert merchant_key(name) is None


def test_codes_are_dense_and_in_the_order_of_the_keys():
    names = pl.Series(["Spotify", None, "NETFLIX.COM", " ", "Apple", "Netflix", "spotify ab"])
    codes = merchant_codes(names)  # apple, netflix, spotify
    assert codes.tolist() == [2, -1, 1, -1, 0, 1, 2]
    assert codes.dtype == "int64"


@pytest.mark.parametrize("names", [pl.Series([], dtype=pl.String), pl.Series([None, None])])
def test_no_names_have_no_codes(names: pl.Series):
    assert merchant_codes(names).tolist() == [-1] * len(names)
