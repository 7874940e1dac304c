"""PromQL for the panels: selectors with the dashboards' variables, rates, quantiles and shares.

Every index worker measures its own partitions and events, so those are summed. What all of them read from the same database
(open dead letters, the active generation) is the same in each, so it is the maximum.
"""

JOB = 'job=~"$job"'
INDEX = f'{JOB},instance=~"$worker"'  # index workers
QUERY = f'{JOB},instance=~"$server"'  # query workers
COLLECTION = 'collection=~"$collection"'
TOPIC = 'topic=~"$topic"'

ALL = ".+"  # what a variable of ours matches when all of its values are chosen
WINDOW = "$__rate_interval"  # at least four scrapes, so that a rate is never of a single sample
RANGE = "$__range"  # the time that the dashboard shows


def index(metric: str, *more: str) -> str:
    """A metric of the chosen index workers, with these matchers too."""
    return f"{metric}{{{','.join((INDEX, *more))}}}"


def serve(metric: str, *more: str) -> str:
    """A metric of the chosen query workers, with these matchers too."""
    return f"{metric}{{{','.join((QUERY, *more))}}}"


def both(metric: str, *more: str) -> str:
    """A metric of all workers of the chosen jobs, with these matchers too."""
    return f"{metric}{{{','.join((JOB, *more))}}}"


def rate(selector: str, window: str = WINDOW) -> str:
    """How much a counter grows a second."""
    return f"rate({selector}[{window}])"


def total(expression: str, *by: str) -> str:
    """The sum, by these labels."""
    return f"sum{_by(by)} ({expression})"


def highest(expression: str, *by: str) -> str:
    """The maximum, by these labels."""
    return f"max{_by(by)} ({expression})"


def rates(selector: str, *by: str) -> str:
    """The summed rate of counters."""
    return total(rate(selector), *by)


def quantile(share: float, buckets: str, *by: str) -> str:
    """A quantile of a histogram; `buckets` selects its `_bucket` series."""
    return f"histogram_quantile({share}, {rates(buckets, 'le', *by)})"


def within(histogram: str, edge: str, window: str, *by: str) -> str:
    """The share of observations that were no larger than `edge`, a bucket's; `histogram` is a selector by its plain name."""
    name, labels = histogram.split("{", 1)
    good = total(f'increase({name}_bucket{{le="{edge}",{labels}[{window}])', *by)
    return f"{good} / {total(f'increase({name}_count{{{labels}[{window}])', *by)}"


def age(moment: str) -> str:
    """Seconds since a moment that a gauge of a worker tells; since its start while there was none yet."""
    started = f"process_start_time_seconds{{{JOB}}}"
    return f"time() - ({moment} > 0 or {started} and {moment})"


def unfound() -> str:
    """Seconds since the canary's document was last found, by topic; since it began where it was found never."""
    found, began = (both(f"livedex_canary_{what}_timestamp_seconds") for what in ("last_success", "began"))
    return f"time() - max by (topic) ({found} > 0 or {began})"


def ratio(part: str, whole: str) -> str:
    """A share of a whole; 0 when the whole has none of the part, nothing when there is no whole."""
    return f"({part} or 0 * {whole}) / {whole}"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
