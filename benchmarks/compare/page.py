"""The results as markdown, from the JSON alone: pure."""

from collections.abc import Callable, Sequence
from typing import Any

from .figures import BF16, FP32, LLAMA, OURS, OURS_EDGE, PLAIN, share_of_peak, share_of_read, verdicts

Row = dict[str, Any]
KINDS = {
    "decode": "Decode: writing {tokens} tokens one by one, tokens per second",
    "prefill": "Prefill: reading a prompt of {prompt} tokens, tokens per second",
    "batch": "Batch: 8 sequences that advance together, {steps} steps, tokens per second of all",
    "first token": "Time to the first token behind a prompt of {short} tokens, milliseconds",
    "load": "Load from the GGUF, pages in memory, milliseconds",
    "load edge": "Load from an edge image (llama.cpp: from the GGUF), pages in memory, milliseconds",
}
METHOD = """\
Each line is one interleaved run: ours, a peer, the next peer, ours again. A figure is the median,
in brackets least and largest; a ratio is the median over rounds of theirs by ours. Processor time
with 1 thread, wall time with more. Each engine in a process of its own, pinned to the same CPUs,
warmed up, fed the same tokens. llama.cpp: built natively with clang-19 without OpenMP, flash
attention on, micro-batch 512, threads that stay (its own threadpool), weights repacked where it has
a layout for them (*buffers* in the JSON); *plain* is the mapped file without repacking. torch: the
weights of the file in that type, fused attention. *Share of reading*: bytes of the weights that a
token needs by what a read loop of our own gets from a buffer as large, side by side. *Share of
peak*: operations of the matrix products by 8-bit products in registers
(benchmarks/parity/limits.c)."""
TIMES = {"first token", "load", "load edge"}
MISSING = (("Gemma-3-270m, decode and prefill", "1.4 and 2 x llama.cpp", "the family is not in yet"),)


def cell(row: Row, engine: str) -> str:
    """Median rate, or time in milliseconds, with the least and the largest; "-" where there is none."""
    found = row.get("rate", {}).get(engine)
    if found is None:
        return "-"
    values = [found["median"], found["low"], found["high"]]
    if row["kind"] in TIMES:
        values = [1e3 / values[0], 1e3 / values[2], 1e3 / values[1]]
    digits = 2 if values[0] < 10 else 0
    return f"{values[0]:.{digits}f} ({values[1]:.{digits}f}-{values[2]:.{digits}f})"


def ratio_cell(row: Row, engine: str) -> str:
    """Median ratio with the least and the largest."""
    found = row.get("ratio", {}).get(engine)
    return f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})" if found else "-"


def percent(value: float | None) -> str:
    """A share, or "-"."""
    return "-" if value is None else f"{value:.0%}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A markdown table; nothing if it has no lines."""
    if not lines:
        return []
    shown = [list(head), ["---"] * len(head), *map(list, lines)]
    return [*(f"| {' | '.join(line)} |" for line in shown), ""]


def targets(found: Row) -> list[str]:
    """The targets of issue 4 beside the figures, met or not."""
    amx = "amx_int8" in found["stamp"]["machine"]["flags"]
    lines = []
    for row in found["rows"]:
        what = f"{row['kind']} {row['quant']}, {row['threads']} thr" if "threads" in row else row["kind"]
        lines += [[what, v.target, v.figure, "yes" if v.met else "**no**"] for v in verdicts(row, amx)]
        if row.get("reason"):
            lines.append([what, "-", row["reason"], "not measured"])
    lines.sort(key=lambda line: line[0].partition(" ")[0] not in ("decode", "prefill"))
    if lines:
        lines += [[*line, "not measured"] for line in MISSING]
    return table(["SmolLM2-135M", "target", "figure", "met"], lines)


def _speed_tables(found: Row, rows: list[Row], peer: str) -> list[str]:
    text: list[str] = []
    for kind, title in KINDS.items():
        chosen = [row for row in rows if row["kind"] == kind and "rate" in row]
        if not chosen or (peer != LLAMA and not any(peer in row["rate"] for row in chosen)):
            continue
        columns: list[tuple[str, Callable[[Row], str]]] = [
            ("format", lambda row: row["quant"]),
            ("threads", lambda row: str(row["threads"])),
            (OURS, lambda row: cell(row, OURS)),
            (peer, lambda row: cell(row, peer)),
            ("ratio", lambda row: ratio_cell(row, peer)),
        ]
        if peer == LLAMA and kind == "decode":
            columns += [("share of reading", lambda row: percent(share_of_read(row)))]
            columns += [("read GB/s", lambda row: f"{row['read_bytes_per_s'] / 1e9:.1f}")]
        if peer == LLAMA and kind == "prefill":
            if any(BF16 in row["rate"] for row in chosen):
                columns += [(f"x {name}", lambda row, n=name: ratio_cell(row, n)) for name in (BF16, FP32)]  # type: ignore[misc]  # a default argument binds the name of this turn
            columns += [("TOPS", lambda row: f"{row['rate'][OURS]['median'] * row['token_ops'] / 1e12:.2f}")]
            columns += [("share of peak", lambda row: percent(share_of_peak(row)))]
        if kind.startswith("load"):
            columns += [("ratio with a session", lambda row: _ready(row, peer))]
        lines = [[value(row) for _, value in columns] for row in chosen]
        text += [f"{title.format(**found['settings'])}:", "", *table([name for name, _ in columns], lines)]
    return text


def _ready(row: Row, peer: str) -> str:
    held = row.get("ready_ratio", {}).get(peer)
    return f"{held['median']:.2f}" if held else "-"


def _memory(rows: list[Row]) -> list[str]:
    chosen = [row for row in rows if row["kind"] == "memory"]
    if not chosen:
        return []
    peers = [name for name in (LLAMA, PLAIN, f"{LLAMA} read") if name in chosen[0]["beyond_bytes"]]
    lines = []
    for row in chosen:
        held = row["beyond_bytes"]
        line = [row["quant"], f"{held[OURS] / 1e6:.1f}", f"{row['plan_bytes'] / 1e6:.1f}"]
        line.append(f"{held[OURS] / row['plan_bytes'] - 1:+.1%}")
        line.append(f"{held[OURS_EDGE] / 1e6:.1f}" if OURS_EDGE in held else "-")
        lines.append(line + [f"{held[name] / 1e6:.0f} ({held[OURS] / held[name]:.2f})" for name in peers])
    head = ["format", OURS, "plan()", "difference", "from an edge image", *peers]
    return [
        "## Memory",
        "",
        "Peak resident MB beyond interpreter and NumPy, a fresh process each, context "
        f"{chosen[0]['context']}; in",
        "brackets the part of it that ours needs. *llama.cpp read*: repacking on, the file read, not mapped.",
        "",
        *table(head, lines),
    ]


def _agreement(rows: list[Row]) -> list[str]:
    lines = [
        [
            *(r["model"], r["quant"], f"{r['distance']:.3f}", f"{r['yardstick']:.3f}"),
            *(f"{r['chance']:.1f}", f"{r['same_top']:.0%}"),
        ]
        for r in rows
        if r["kind"] == "agreement"
    ]
    if not lines:
        return []
    return [
        "## Agreement, before anything was timed",
        "",
        "Mean difference of the log-probability of the observed token on one window: ours from llama.cpp,",
        "llama.cpp at one micro-batch from itself at micro-batch 1, a token from an unrelated one; how often",
        "the top token is the same.",
        "",
        *table(
            ["model", "format", "ours from llama.cpp", "llama.cpp from itself", "unrelated", "same top"],
            lines,
        ),
    ]


def _head(found: Row) -> list[str]:
    stamp, machine = found["stamp"], found["stamp"]["machine"]
    versions = ", ".join(
        f"{name} {said['version']}" for name, said in found.get("versions", {}).items() if "version" in said
    )
    changed = " with changes" if stamp.get("changed_since_commit") else ""
    state = "" if found["complete"] else " **Not complete.**"
    return [
        "# Speed and memory beside other engines",
        "",
        f"Made by `make bench` on {stamp['date'][:10]}, commit {stamp['commit']}{changed}; {versions}; "
        f"{machine['cores']} cores of {machine['cpu']} ({' '.join(machine['flags'])}), instruction set "
        f"{stamp['isas'][-1]}; governor {stamp['governor'] or 'not visible'}, load average "
        f"{stamp['load_before']} before and {found['load_after']} after.{state}",
        "",
        METHOD,
        "",
    ]


def page(found: Row) -> str:
    """The whole page."""
    rows: list[Row] = found["rows"]
    real = [row for row in rows if row["model"] and not row["model"].startswith("random")]
    random = [row for row in rows if row["model"].startswith("random")]
    text = _head(found)
    judged = targets(found)
    if judged:
        text += ["## Targets", "", *judged]
    if real:
        text += [f"## {real[0]['model']}", "", *_speed_tables(found, real, LLAMA)]
    text += _memory(rows)
    plain = _speed_tables(found, real, PLAIN)
    if plain:
        text += ["## Beside llama.cpp's plain map", "", *plain]
    if random:
        text += ["## Every other format: random weights, width 768", "", *_speed_tables(found, random, LLAMA)]
    text += _agreement(rows)
    if found["troubles"]:
        text += ["## Not measured", "", *(f"- {trouble}" for trouble in found["troubles"]), ""]
    return "\n".join(text)
