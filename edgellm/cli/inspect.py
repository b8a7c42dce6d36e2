"""``edgellm inspect``: what is in a model file. Reads the header only; no weights, no model."""

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

from edgellm.cli._text import count_text, json_number, printable, size_text, table

if TYPE_CHECKING:
    from edgellm import _core

NAME = "inspect"
HELP = "show what is in a model file, without loading it"

SHOWN_ITEMS = 4  # of a long array


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm inspect``."""
    parser.add_argument("model", help="a GGUF file, an edge image, or the name of a pulled model")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm inspect``."""
    from edgellm import _core, gguf, models

    path = models.resolve(args.model, pull=False)
    image = _core.edge_open(str(path), False)
    if image is not None:
        return _show_image(image, str(path), args)
    header = gguf.read(path)
    found = describe(header)
    if args.tensors:
        found["tensors"] = [
            {"name": t.name, "type": t.type, "shape": list(t.shape), "offset": t.offset, "bytes": t.nbytes}
            for t in header.tensors
        ]
    print(json.dumps(found, indent=2) if args.json else _page(found))
    return 0


def _show_image(image: "_core.EdgeImage", path: str, args: argparse.Namespace) -> int:
    """An edge image: facts, plan and parts; hashes as the file states them, unchecked."""
    info = image.info
    facts = info.pop("image")
    found: dict[str, Any] = {
        "path": path,
        **facts,
        **info,
        "sections": len(image.sections),
        "tensors": len(image.tensors),
    }
    rows: list[dict[str, Any]] = [
        {"name": name, "type": type, "shape": [n, k], "offset": offset, "bytes": nbytes, "sha256": sha.hex()}
        for name, type, n, k, offset, nbytes, sha in image.tensors
    ]
    if args.json:
        print(json.dumps({**found, "tensors": rows} if args.tensors else found, indent=2))
        return 0
    template = found.pop("chat_template")
    found["chat_template"] = None if template is None else f"{len(template)} characters"
    for key in ("plan", "types"):
        found[key] = ", ".join(f"{name} {amount}" for name, amount in found[key].items())
    print("edge image")
    print(table([[key, "-" if value is None else printable(str(value), 80)] for key, value in found.items()]))
    if args.tensors:
        cells = [
            [printable(r["name"]), r["type"], "x".join(map(str, r["shape"])), r["offset"], r["bytes"]]
            for r in rows
        ]
        print()
        print(table([["tensor", "type", "shape", "offset", "bytes"], *cells], right=[3, 4]))
    return 0


def describe(header: Any) -> dict[str, Any]:
    """What there is to say about a header, ready for JSON.

    Parameters
    ----------
    header : edgellm.gguf.Header

    Returns
    -------
    found : dict
        ``architecture``, ``parameters``, ``types`` (tensors, parameters and bytes by tensor type), ``file``
        (version, alignment, sizes) and ``metadata`` (long arrays cut short).
    """
    types: dict[str, dict[str, int]] = {}
    for tensor in header.tensors:
        row = types.setdefault(tensor.type, {"tensors": 0, "parameters": 0, "bytes": 0})
        row["tensors"] += 1
        row["parameters"] += math.prod(tensor.shape)
        row["bytes"] += tensor.nbytes
    architecture = header.metadata.get("general.architecture")
    return {
        "path": header.path,
        "architecture": architecture if isinstance(architecture, str) else None,
        "parameters": sum(row["parameters"] for row in types.values()),
        "types": dict(sorted(types.items(), key=lambda item: -item[1]["bytes"])),
        "file": {
            "version": header.version,
            "alignment": header.alignment,
            "bytes": header.file_bytes,
            "data_offset": header.data_offset,
            "tensors": len(header.tensors),
        },
        "metadata": {
            key: {"kind": header.kind(key), **_value(header.metadata[key])} for key in header.metadata
        },
    }


def _value(value: Any) -> dict[str, Any]:
    """The value of an entry; of a long array the first items and the count."""
    if isinstance(value, bool | int | str):
        return {"value": value}
    if isinstance(value, float):
        return {"value": json_number(value)}
    first = [_value(item.item() if hasattr(item, "item") else item)["value"] for item in value[:SHOWN_ITEMS]]
    return {"count": len(value), "first": first}


def _page(found: dict[str, Any]) -> str:
    """The description for a person."""
    file = found["file"]
    lines = [
        f"file          GGUF {file['version']}, {size_text(file['bytes'])}, {file['tensors']} tensors",
        f"architecture  {printable(found['architecture'] or 'not stated')}",
        f"parameters    {count_text(found['parameters'])}",
        "",
        table(
            [
                ["type", "tensors", "parameters", "bytes"],
                *(
                    [name, row["tensors"], count_text(row["parameters"]), size_text(row["bytes"])]
                    for name, row in found["types"].items()
                ),
            ],
            right=[1, 2, 3],
        ),
        "",
        table(
            [[printable(key), entry["kind"], _cell(entry)] for key, entry in found["metadata"].items()]
            or [["-"]]
        ),
    ]
    if "tensors" in found:
        rows = [
            [printable(t["name"]), t["type"], "x".join(map(str, t["shape"])), t["offset"], t["bytes"]]
            for t in found["tensors"]
        ]
        lines += ["", table([["tensor", "type", "shape", "offset", "bytes"], *rows], right=[3, 4])]
    return "\n".join(lines)


def _cell(entry: dict[str, Any]) -> str:
    if "count" in entry:
        items = ", ".join(printable(str(item), 20) for item in entry["first"])
        more = ", ..." if entry["count"] > len(entry["first"]) else ""
        return f"{entry['count']} items: {items}{more}"
    value = entry["value"]
    return f"{value:.7g}" if isinstance(value, float) else printable(str(value), 80)
