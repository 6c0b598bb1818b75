"""Charges that come back: a causal state machine for each user and merchant, all of them stepped at once.

A *run* is a row of charges that keep a rhythm; what stands of it at the end is a stream. A charge joins the run when
it comes on time, or one period late because a charge between was declined or missed, and its amount fits. Before a
run is mature, any other charge ends it; a mature run leaves charges out that come too early, since a merchant may
sell other things too. Coffee every morning is a habit: no rhythm is shorter than six days.

Two subscriptions that one merchant bills hide each other from that walk. A second one therefore goes over the charges
of each single amount, and adds what comes monthly or annually and the first walk has not told of.

Nothing is decided by what comes later: `is_new` and `rise` of a charge hang on the charges up to it alone.
"""

from alertrec.recurring.rhythms import FREQUENCIES, STATUSES, Frequency, Status
from alertrec.recurring.streams import Streams, find_streams

__all__ = ["FREQUENCIES", "STATUSES", "Frequency", "Status", "Streams", "find_streams"]
