"""A made-up bank: users of several kinds, what they buy, and the alerts that they keep.

The rules are drawn from what a user does and is, so that there is something to learn: users alike keep alike
alerts, and who has one alert is likelier to have another.
"""

from alertrec.sample_bank.answers import make_sample_answers
from alertrec.sample_bank.bank import SampleBank, make_sample_bank

__all__ = ["SampleBank", "make_sample_answers", "make_sample_bank"]
