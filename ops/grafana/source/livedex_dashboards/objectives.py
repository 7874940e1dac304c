"""The service levels that the dashboards judge by; those of the rules in ops/prometheus. Each edge is one of a histogram's."""

FRESH_WITHIN = "30.0"  # seconds from an event to searchable
FRESH_SHARE = 0.99  # of the events
FAST_WITHIN = "0.5"  # seconds of a search
FAST_SHARE = 0.99  # of the searches
ANSWERED_SHARE = 0.999  # of the searches

# Not answered: refused because of load, too late, or failed. HTTP statuses and SQLSTATEs; a caller's own mistake is an answer
FAULTS = 'code=~"429|5..|53...|57...|58...|XX..."'

FAST_BURN, SLOW_BURN = 14.4, 6.0  # times the rate at which the budget lasts for just 30 days: both page
STALE_AFTER = 300.0  # seconds of staleness: pages
NOT_POLLING_AFTER = 120.0  # seconds: pages
RECALL = 0.9  # of the ten nearest
