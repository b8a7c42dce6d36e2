"""``edgellm convert``: a model file in another format, or packed as an edge image for deployment."""

import argparse
import json

from edgellm.cli import UsageError
from edgellm.cli._text import size_text

NAME = "convert"
HELP = "make a GGUF in another format, or an edge image for deployment"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm convert``."""
    parser.add_argument("source", nargs="?", help="a GGUF file, an edge image, or a known name")
    parser.add_argument("target", nargs="?", help="the file to write; .edge makes an edge image")
    parser.add_argument("--quant", metavar="TYPE", help="format of the matrices, such as q4_0")
    parser.add_argument("--embedding", metavar="TYPE", help="format of embedding and head")
    parser.add_argument(
        "--machine",
        metavar="NAME",
        help="what an edge image asks for: portable (default), x86-avx2, x86-avx512 or aarch64",
    )
    parser.add_argument("--version", type=int, default=0, metavar="N", help="of an edge image (default: 0)")
    parser.add_argument("--sign", metavar="KEY", help="private Ed25519 key (file) that signs the image")
    parser.add_argument("--new-key", metavar="FILE", help="make a key pair, FILE and FILE.pub, and stop")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm convert``; prints what was written."""
    if args.new_key is not None:
        if args.source is not None:
            raise UsageError("--new-key takes no model")
        return _make_keys(args)
    if args.source is None or args.target is None:
        raise UsageError("name a model and the file to write")
    import edgellm

    done = edgellm.convert(
        args.source,
        args.target,
        args.quant,
        embedding=args.embedding,
        machine=args.machine,
        version=args.version,
        sign=args.sign,
        progress=True,
    )
    if args.json:
        found = {"path": done.path, "quant": done.quant, "bytes_in": done.bytes_in, "bytes": done.bytes_out}
        print(json.dumps({**found, "requantized_from": done.requantized_from}))
    else:
        print(f"{done.path}: {done.quant}, {size_text(done.bytes_out)}")
    return 0


def _make_keys(args: argparse.Namespace) -> int:
    from edgellm._signing import new_key_pair

    secret, public = new_key_pair(args.new_key)
    if args.json:
        print(json.dumps({"private": secret, "public": public}))
    else:
        print(f"{secret}: keep it secret, it signs (--sign)\n{public}: give it to devices, it verifies")
    return 0
