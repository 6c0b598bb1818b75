/** What tells one recommendation from another. */
const starterKeyOf = (item) => `starter:${item.alert_type}`;

export const keyOf = (item) => item.recommendation_id ?? starterKeyOf(item);

/** Under which keys a card may have stood for this item: an offer takes the place of the starter of its type. */
export const keysOf = (item) => [keyOf(item), ...(item.change ? [] : [starterKeyOf(item)])];

export const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);
