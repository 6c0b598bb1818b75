"""The names of tasks and queues. Users were promised them and messages on the way carry them: they never change."""

from __future__ import annotations

GENERATE_RECOMMENDATIONS = "alertrec.generate_recommendations"
LOG_ALERT_ACTION = "alertrec.log_alert_action"
PROCESS_ACTIONS = "alertrec.process_actions"
TRAIN_MODEL = "alertrec.train_model"
REFRESH_RECOMMENDATIONS = "alertrec.refresh_recommendations"
REFRESH_CHUNK = "alertrec.refresh_chunk"
TICK = "alertrec.tick"
CLEANUP_EXPIRED = "alertrec.cleanup_expired"

INTERACTIVE = "interactive"
ACTIONS = "actions"
BATCH = "batch"
TRAINING = "training"
CONTROL = "control"

QUEUE_OF = {
    GENERATE_RECOMMENDATIONS: INTERACTIVE,
    LOG_ALERT_ACTION: ACTIONS,
    PROCESS_ACTIONS: ACTIONS,
    TRAIN_MODEL: TRAINING,
    REFRESH_RECOMMENDATIONS: BATCH,
    REFRESH_CHUNK: BATCH,
    TICK: CONTROL,
    CLEANUP_EXPIRED: BATCH,
}
QUEUES = (INTERACTIVE, ACTIONS, BATCH, TRAINING, CONTROL)

# In the broker: when the last tick ran, a sign of life of Beat and of the queue that its ticks go through.
LAST_TICK = "alertrec:last_tick"
LAST_TICK_KEPT_SECONDS = 86_400  # its age is what has passed of that, by the broker's clock: others may be wrong
