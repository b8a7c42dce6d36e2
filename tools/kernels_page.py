"""Print docs/kernels.md: every operation, its contract's first sentence, and where its kernels are."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "csrc" / "kernels"


def first_sentence(function: str, header: str) -> str:
    """First sentence of the comment above a contract (or of the one above its group)."""
    at = re.search(rf"^typedef void {function}\(", header, re.MULTILINE)
    if at is None:
        raise SystemExit(f"kernel_types.h has no {function}")
    before = header[: at.start()].rstrip("\n").split("\n")
    comment: list[str] = []
    for line in reversed(before):
        if line.startswith("///"):
            comment.insert(0, line[3:].strip())
        elif comment:
            break
    text = " ".join(line for line in comment).strip()
    return re.split(r"(?<=\.)\s|\s@param", text)[0]


def features() -> dict[str, list[str]]:
    """CPU features behind each EL_NEEDS_* of core/select.h."""
    header = (ROOT / "csrc" / "core" / "select.h").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {"0": []}
    for macro, body in re.findall(r"^#define (EL_NEEDS_\w+) (.+)$", header, re.MULTILINE):
        parts = re.findall(r"EL_(?:CPU|NEEDS)_\w+", body)
        found[macro] = [name for part in parts for name in found.get(part, [part])]
    return found


def main() -> None:
    """Write the page to standard output."""
    header = (KERNELS / "kernel_types.h").read_text(encoding="utf-8")
    ops = re.findall(r"^EL_OP\((\w+), (\w+)\)", (KERNELS / "kernels_ops.def").read_text(), re.MULTILINE)
    rows = re.findall(
        r"^EL_KERNEL\((\w+), (\w+), (.+)\)$", (KERNELS / "kernels.def").read_text(), re.MULTILINE
    )
    isas = list(dict.fromkeys(isa for _, isa, _ in rows))
    print("# Kernels\n")
    print(
        "Made by `python tools/kernels_page.py > docs/kernels.md` from `kernels_ops.def`, `kernels.def` and"
    )
    print("`kernel_types.h`; a test compares. Contracts are in the header, arithmetic in")
    print("[numerics.md](numerics.md). All kernels of an operation give the same bits, but for those of")
    print("`amxbf16`, which only `load(..., exact=False)` allows.\n")
    print("| operation | what it does | " + " | ".join(isas) + " |")
    print("| --- | --- |" + " --- |" * len(isas))
    for op, function in ops:
        cells = []
        for isa in isas:
            files = [
                p for p in sorted((KERNELS / isa).glob("*.c")) if f"void el_{op}__{isa}(" in p.read_text()
            ]
            cells.append(f"`{files[0].name}`" if files else "")
        print(f"| `{op}` | {first_sentence(function, header)} | " + " | ".join(cells) + " |")
    print("\nCPU features needed, as `edgellm.cpu.features()` names them:\n")
    for isa in isas:
        needs = sorted({name for _, row, need in rows if row == isa for name in features()[need]})
        names = [name.removeprefix("EL_CPU_").lower() for name in needs]
        print(f"- `{isa}`: " + (", ".join(f"`{name}`" for name in names) or "none"))


if __name__ == "__main__":
    main()
