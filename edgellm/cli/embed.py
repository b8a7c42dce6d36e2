"""``edgellm embed``: texts as vectors."""

import argparse
import json
import sys

from edgellm.cli import UsageError
from edgellm.cli._model import add_model_arguments, load

NAME = "embed"
HELP = "turn texts into vectors, as lines of JSON or a NumPy file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm embed``."""
    add_model_arguments(parser)
    parser.add_argument("texts", nargs="*", help="the texts; without any, each line of standard input is one")
    parser.add_argument(
        "--pooling", choices=("mean", "last"), default="mean", help="of the tokens (default: %(default)s)"
    )
    parser.add_argument("--raw", action="store_true", help="do not scale vectors to length 1")
    parser.add_argument("--output", metavar="FILE", help="write a .npy file of float32 (texts, width)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm embed``."""
    texts = args.texts or [line.rstrip("\r\n") for line in sys.stdin]
    if not texts:
        raise UsageError("there is no text")
    with load(args, args.threads) as model:
        vectors = model.embed(texts, pooling=args.pooling, normalize=not args.raw)
    if args.output is not None:
        import numpy as np

        from edgellm._atomic import replacing

        with replacing(args.output) as file:
            np.save(file, vectors)
        if args.json:
            print(json.dumps({"model": args.model, "path": args.output, "shape": list(vectors.shape)}))
        return 0
    if args.json:
        print(json.dumps({"model": args.model, "embeddings": vectors.tolist()}))
        return 0
    for i, vector in enumerate(vectors.tolist()):
        print(json.dumps({"index": i, "embedding": vector}))
    return 0
