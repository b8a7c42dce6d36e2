"""The columns of a study's tables: name, unit and meaning, each stated once.

docs/study.md shows the same text; a test compares them.
"""

from dataclasses import dataclass

#: Version of the Parquet layout and of the metadata inside.
SCHEMA = 1

#: What a message may carry, for the privacy ledger. Source: DESIGN.md, section 8.
DATA_CLASSES = ("text", "metadata", "activations", "adapter", "gradient")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name : str
    kind : {"int", "float", "bool", "str"}
    unit : str
        "" where there is none.
    meaning : str
        One sentence; formula where it is computed.
    better : {"", "lower", "higher"}
        Which way is better, for pareto fronts; "" where neither is.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    better: str = ""


def _left_home(suffix: str, per: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            f"left_home_{c}_bytes{suffix}",
            "float",
            "bytes",
            f"The part of `left_home_bytes{suffix}` of class {c}.",
            per,
        )
        for c in DATA_CLASSES
    )


REQUEST_COLUMNS: tuple[Column, ...] = (
    Column("strategy", "str", "", "Label of the strategy, with its parameters."),
    Column("base_model", "str", "", "Model variant that requests ask for by default in this run."),
    Column("seed", "int", "", "Seed of the run."),
    Column(
        "id", "int", "",
        "Number of the request in its run, in order of arrival of its conversation, then by turn; the same "
        "request has the same id under every strategy.",
    ),
    Column("conversation", "int", "", "Number of its conversation; a request on its own is one."),
    Column("turn", "int", "", "Which request of the conversation it is, from 0."),
    Column("attempt", "int", "", "How often it was tried before; the id counts on with it."),
    Column("node", "str", "", "Node where the request arrived."),
    Column(
        "arrival_s", "float", "s",
        "When it arrived, since the start of the simulated period; of another attempt, when the first did.",
    ),
    Column("kind", "str", "", "Kind of request, as the scenario names it."),
    Column("prompt_tokens", "int", "tokens", "Length of the prompt."),
    Column("output_tokens", "int", "tokens", "Length of the answer asked for."),
    Column("data_class", "str", "", "Kind of user data in the prompt."),
    Column("deadline_s", "float", "s", "Deadline since arrival; NaN if none."),
    Column(
        "status", "str", "",
        "ok, rejected (the strategy declined), failed (with a reason), unfinished (still running when the "
        "simulation ended), or retried (rejected or failed, and followed by another attempt, which counts).",
    ),
    Column("reason", "str", "", "Why it was not served; empty if it was."),
    Column("model", "str", "", "Model variant that answered; empty if none."),
    Column(
        "first_token_s", "float", "s",
        "Time to first token (TTFT), since arrival; infinite if none came.",
    ),
    Column("e2e_s", "float", "s", "Time to the end of the answer, since arrival; infinite if not served."),
    Column(
        "tpot_s", "float", "s",
        "Time per output token after the first: (e2e - TTFT) / (answered tokens - 1); NaN for answers "
        "of one token.",
    ),
    Column(
        "energy_j", "float", "J",
        "Energy that this request caused, above idle: computing on every node it used, waking it, and its "
        "bytes on links.",
    ),
    Column("device_energy_j", "float", "J", "The part of energy_j spent on the node where it arrived."),
    Column("bytes_up", "float", "bytes", "Bytes sent up over all links, headers and repetitions too."),
    Column("bytes_down", "float", "bytes", "Bytes received over all links, headers and repetitions too."),
    Column(
        "left_home_bytes", "float", "bytes",
        "User data that crossed out of the site where the request arrived.",
    ),
    *_left_home("", ""),
    Column("cloud_s", "float", "s", "Busy time on nodes that are paid by the hour."),
    Column("cost_usd", "float", "USD", "cloud_s times the price of those nodes."),
    Column("escalated", "bool", "", "Whether a first answer was given up for a stronger model."),
    Column("tokens_wasted", "float", "tokens", "Tokens computed that are not part of the final answer."),
)  # fmt: skip

_CI = " Half width of the 95 % interval over seeds: column `{}_ci`."


def _latency(name: str, title: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            f"{name}_p{q}_s", "float", "s",
            f"{title}, percentile {q} over all requests; a request not served counts as infinite.", "lower",
        )
        for q in (50, 95, 99)
    )  # fmt: skip


#: Figures of one row of `Study.table()`: each is computed per seed and then averaged, with a `_ci` column.
METRIC_COLUMNS: tuple[Column, ...] = (
    Column("requests", "float", "requests", "Requests that arrived, each once however often it was tried."),
    Column("served_share", "float", "share", "Requests with status ok / requests.", "higher"),
    *_latency("ttft", "Time to first token"),
    *_latency("e2e", "Time to the whole answer"),
    *_latency("tpot", "Time per output token after the first (answers of one token left out)"),
    Column(
        "goodput_per_s", "float", "requests/s",
        "Requests served within every limit of the SLO / length of the simulated period.", "higher",
    ),
    Column(
        "slo_attainment", "float", "share",
        "Requests served within every limit of the SLO / requests.", "higher",
    ),
    Column(
        "energy_per_request_j", "float", "J",
        "Sum of energy_j over all attempts, failed ones included / requests served.", "lower",
    ),
    Column(
        "device_energy_per_request_j", "float", "J",
        "Sum of device_energy_j over all requests / requests served.", "lower",
    ),
    Column(
        "energy_per_device_j", "float", "J",
        "Mean over the nodes of role device of the energy of the whole period, idle included.", "lower",
    ),
    Column(
        "fleet_energy_j", "float", "J",
        "Energy of all nodes, their radios included, over the whole period, idle included.", "lower",
    ),
    Column("bytes_up_per_request", "float", "bytes", "Sum of bytes_up / requests.", "lower"),
    Column("bytes_down_per_request", "float", "bytes", "Sum of bytes_down / requests.", "lower"),
    Column("left_home_bytes_per_request", "float", "bytes", "Sum of left_home_bytes / requests.", "lower"),
    *_left_home("_per_request", "lower"),
    Column(
        "fleet_left_home_bytes", "float", "bytes",
        "User data that left the home it came from in the whole period, with that of no request (daemons).",
        "lower",
    ),
    Column("cost_usd_per_1000", "float", "USD", "1000 times the sum of cost_usd / requests served.", "lower"),
    Column("attempts_per_request", "float", "", "Attempts / requests.", "lower"),
    Column("escalated_share", "float", "share", "Requests escalated / requests."),
    Column("tokens_wasted_per_request", "float", "tokens", "Sum of tokens_wasted / requests.", "lower"),
)  # fmt: skip

#: The other columns of `Study.table()`.
LABEL_COLUMNS: tuple[Column, ...] = (
    Column("strategy", "str", "", "Label of the strategy, with its parameters."),
    Column("base_model", "str", "", "Model variant that requests ask for by default."),
    Column("seeds", "int", "", "Runs that this row is the mean of."),
    Column("answered_by", "str", "", "Variants that answered, with their shares of the answers."),
)
QUALITY_COLUMNS: tuple[Column, ...] = (
    Column(
        "perplexity", "float", "",
        "exp(sum of share times ln perplexity) over the variants that answered.", "lower",
    ),
    Column(
        "top1_agreement", "float", "share",
        "Sum of share times agreement over the variants that answered; agreement is with the "
        "published file.", "higher",
    ),
    Column(
        "quality_label", "str", "",
        "How these two were had: measured (and requantized from what), cited, not measured; several "
        "joined by +.",
    ),
    Column(
        "top_reason", "str", "",
        "Most frequent reason of not serving, with its count over all seeds; empty if all were "
        "served.",
    ),
    Column("validation", "str", "", "The published table this strategy was compared with, or unvalidated."),
)  # fmt: skip


def table_columns() -> list[str]:
    """Return the names of the columns of `Study.table()`, in order.

    Examples
    --------
    >>> table_columns()[:3]
    ['strategy', 'base_model', 'seeds']
    """
    metrics = [name for c in METRIC_COLUMNS for name in (c.name, f"{c.name}_ci")]
    return [c.name for c in LABEL_COLUMNS] + metrics + [c.name for c in QUALITY_COLUMNS]


def find(name: str) -> Column:
    """Return the column of `Study.table()` with this name.

    Raises
    ------
    ValueError
        If there is none; the message lists the numeric columns.
    """
    for column in (*LABEL_COLUMNS, *METRIC_COLUMNS, *QUALITY_COLUMNS):
        if column.name == name:
            return column
    known = ", ".join(c.name for c in (*METRIC_COLUMNS, *QUALITY_COLUMNS) if c.kind == "float")
    raise ValueError(f"no column {name!r} in a study's table; numeric columns: {known}")


def directed(name: str) -> Column:
    """Return the figure of each run with this name, of which more or less is better.

    Raises
    ------
    ValueError
        If there is none, or neither direction of it is better.
    """
    column = find(name)
    if column not in METRIC_COLUMNS:
        known = ", ".join(c.name for c in METRIC_COLUMNS if c.better)
        raise ValueError(f"{name!r} is not measured in each run; these are, and have a better way: {known}")
    if not column.better:
        raise ValueError(f"neither more nor less of {name!r} is better")
    return column
