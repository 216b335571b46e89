"""Campaigns: bringing one release to a selection of nodes, group by group.

``machine`` says what may happen, ``plan`` which nodes are meant, ``groups`` how they are divided, ``forecast`` what it
will cost; ``conduct`` carries campaigns through the store, ``health`` watches their nodes, ``outbox`` tells the
gateways.
"""

from server.campaigns.conduct import act, create, held_back, overview, record_progress, retry, review
from server.campaigns.forecast import forecast
from server.campaigns.health import watch
from server.campaigns.machine import OPERATOR_ACTIONS, Action, CampaignError
from server.campaigns.outbox import mark_published, republish_active, unpublished
from server.campaigns.plan import Plan

__all__ = [
    "OPERATOR_ACTIONS",
    "Action",
    "CampaignError",
    "Plan",
    "act",
    "create",
    "forecast",
    "held_back",
    "mark_published",
    "overview",
    "record_progress",
    "republish_active",
    "retry",
    "review",
    "unpublished",
    "watch",
]
