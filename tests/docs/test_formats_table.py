"""The table of docs/formats.md says what the engine does."""

from edgellm import quant


def test_table_of_formats_is_that_of_the_engine(root):
    lines = (root / "docs" / "formats.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    wanted = [
        [
            f"`{name}`",
            f"{info.number}",
            f"{info.block_values}",
            f"{info.block_bytes}",
            f"{info.bits_per_value:g}",
            "yes" if name in quant.QUANTIZABLE else "no",
        ]
        for name, info in quant.TYPES.items()
    ]
    assert [row[:6] for row in rows] == wanted
