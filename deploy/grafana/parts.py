"""What panels are made of, and the expressions that several of them share. It reads and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

SELECTOR = 'job=~"$job", namespace=~"$namespace"'
# A token is known by these: two clusters may well have a token of one name. It has them in the rules of Prometheus too.
BY_NAME = "by (cluster, namespace, job, token)"
BY_SINK = "by (cluster, namespace, job, token, sink)"
BY_FILE = "by (cluster, namespace, job, token, sink, instance, pod)"
LATE_SECONDS = 60
# The windows of Grafana: at least four scrapes, and the time that is shown.
RATE, RANGE = "$__rate_interval", "$__range"


def metric(name: str, *matchers: str) -> str:
    """The series of one of our metrics that the variables select."""
    return f"aca_tokend_{name}{{{', '.join((SELECTOR, *matchers))}}}"


# 0 while a daemon is scraped, and nothing while none is: so that "0 errors" is said only where somebody counts them.
ZERO = f"0 * max({metric('build_info')})"


def or_none(expression: str, **labels: str) -> str:
    """The expression, or where it has no series a single 0 with these labels."""
    none = ZERO
    for label, value in labels.items():
        none = f'label_replace({none}, "{label}", "{value}", "", "")'
    return f"({expression}) or on () {none}"


def a_minute(counter: str, by: str) -> str:
    """How often a minute a counter was raised, by these labels."""
    return f"sum by ({by}) (rate({counter}[{RATE}])) * 60"


def raised(counter: str, window: str) -> str:
    """How often a counter was raised within a window; `increase` misses the first time of one that began in it."""
    return f"(({counter} unless {counter} offset {window}) or increase({counter}[{window}]))"


def quantile(share: float, histogram: str, by: str = "") -> str:
    """A quantile of a histogram within the interval of a point, by these labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) ({raised(histogram, RATE)}))"


def published(what: str, *matchers: str) -> str:
    """A time of what each place holds, 0 for a place that holds none of ours.

    What a Vault holds is shared, and of several replicas the one that knows of the latest is right. A file belongs to
    its machine.
    """
    name = f"published_{what}_timestamp_seconds"
    shared, own = metric(name, *matchers, 'sink=~"vault[.:].*"'), metric(name, *matchers, 'sink!~"vault[.:].*"')
    return f"(max {BY_SINK} ({shared}) or max {BY_FILE} ({own}))"


def until_expiry(*matchers: str) -> str:
    """For each token the time until the first of its places holds an expired one; nothing for one never published."""
    return f"min {BY_NAME} ({published('expiration', *matchers)} > 0) - time()"


def tolerance_left(*matchers: str) -> str:
    """For each token the share of its outage tolerance that is left: 1 up to its rotation point, 0 at its expiry."""
    tolerance = f"min {BY_NAME} ({metric('token_outage_tolerance_seconds', *matchers)} > 0)"
    return f"clamp(({until_expiry(*matchers)}) / {tolerance}, 0, 1)"


def _state(*matchers: str) -> str:
    """The state of each token as a number, as near to that of the status page as metrics tell.

    Of what is true of a token the first counts. While nearly all tokens are ready nearly all of these sets are small,
    which makes it cheap for 10,000 of them.
    """
    # A token that lives shorter than the time between two scrapes is asked for by `token_ready`.
    over = f"(min {BY_NAME} ({metric('token_ready', *matchers)}) == 0"
    over += f" and min {BY_NAME} ({published('expiration', *matchers)}) <= time())"
    suspended = f"max {BY_NAME} ({metric('token_suspended', *matchers)} == 1)"
    failed = f"max {BY_NAME} ({metric('token_consecutive_failures', *matchers)} > 0)"
    issued = f"max {BY_NAME} ({metric('token_issued_timestamp_seconds', *matchers)} > 0)"
    # One that waits for its endpoint has not failed, but was due. A minute is for the attempt and the next scrape.
    late = f"max {BY_NAME} ({metric('token_rotation_timestamp_seconds', *matchers)} > 0) < time() - {LATE_SECONDS}"
    starting = f"1 + 0 * ({over} unless {issued} unless {failed} unless {suspended})"
    ready = f"0 * max {BY_NAME} ({metric('token_ready', *matchers)})"
    return "\nor ".join(
        (starting, f"4 + 0 * {over}", f"3 * {suspended}", f"2 + 0 * ({failed})", f"2 + 0 * ({late})", ready)
    )


# In the order of the numbers of `_state`: how each is called, as on the status page, and its colour.
STATES = (("ready", "green"), ("starting", "blue"), ("failing", "yellow"), ("suspended", "orange"), ("expired", "red"))
STATE = f"({_state()})"
ONE = 'token="$token"'
STATE_OF_ONE = f"({_state(ONE)})"


Steps = tuple[tuple[float | None, str], ...]


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel.

    Attributes:
        expression: PromQL, with the variables of the dashboard.
        legend: the name of its series, with `{{label}}` for the value of a label; in a table, of the column.
        colour: what its number is shown in from 1 on, where 0 needs no attention.
    """

    expression: str
    legend: str = ""
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        told: its description, in plain words: what is well, and what is not.
        kind: `stat` and `table` show the present, `bars` too, sorted; `lines` and `states` the time that is shown.
        unit: a unit of Grafana.
        queries: its expressions.
        width: in columns, of which there are 24.
        height: in rows of the grid.
        steps: from which value on which colour; the first holds from below.
        words: what is shown in place of a number, with its colour.
        decimals: of its values, where Grafana's choice would hide what matters.
        most: the end of the scale, where it has one.
        runbook: the alert whose runbook fits.
        none: what is shown where there are no series.
        by_name: shows the name of the series in place of its value.
    """

    title: str
    told: str
    kind: str
    unit: str
    queries: tuple[Query, ...]
    width: int
    height: int
    steps: Steps = ()
    words: tuple[tuple[int, str, str], ...] = ()
    decimals: int | None = None
    most: float | None = None
    runbook: str = ""
    none: str = ""
    by_name: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A heading, and the panels below it from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of the dashboard, of the values that the label of its name has in `metric`."""

    name: str
    title: str
    told: str
    metric: str
    all_values: str = ""  # the regular expression of "All"; where it is empty, one value has to be chosen
