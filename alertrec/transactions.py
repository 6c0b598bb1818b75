"""The words that the column values of `transactions` are made of."""

from __future__ import annotations

PURCHASE = "PURCHASE"
REFUND = "REFUND"
PAYMENT = "PAYMENT"
FEE = "FEE"
TRANSFER = "TRANSFER"
WITHDRAWAL = "WITHDRAWAL"
DEPOSIT = "DEPOSIT"
INTEREST = "INTEREST"
TRANSACTION_TYPES = (PURCHASE, REFUND, PAYMENT, FEE, TRANSFER, WITHDRAWAL, DEPOSIT, INTEREST)

PENDING = "PENDING"
APPROVED = "APPROVED"
SETTLED = "SETTLED"
DECLINED = "DECLINED"
CANCELLED = "CANCELLED"
REVERSED = "REVERSED"
STATUSES = (PENDING, APPROVED, SETTLED, DECLINED, CANCELLED, REVERSED)

# What happened, or is about to: a purchase of such a status is spending.
SPENDING_STATUSES = frozenset({PENDING, APPROVED, SETTLED})

# What moves the balance of a credit account. A transfer may do either, and counts as neither.
BALANCE_RAISED_BY = (PURCHASE, FEE, INTEREST, WITHDRAWAL)
BALANCE_LOWERED_BY = (REFUND, PAYMENT, DEPOSIT)

MAX_AMOUNT = 1e14  # what the import accepts; whatever is above is not money
