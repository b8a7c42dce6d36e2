"""Train the small home model that the C examples run: a Llama of 443,232 parameters, 11 minutes on one core.

    python -m venv out/torch && out/torch/bin/pip install torch==2.13.0 tokenizers==0.23.3 gguf==0.19.0
    out/torch/bin/python tools/tiny/train.py --piles home-llm/data/piles/english --out f32.gguf
    .venv/bin/python -c "import edgellm; edgellm.convert('f32.gguf', 'tiny-home.gguf', quant='q8_0')"

The same seed and versions give the same file on the same kind of CPU. Nothing here runs in `make test`.
"""

import argparse
import json
import math
import time
from pathlib import Path

import gguf
import torch
from dialogues import Dialogues, action_lines
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F

LAYERS, WIDTH, HEADS, KV_HEADS, FFN, VOCAB, CONTEXT = 4, 96, 6, 2, 256, 512, 256
HEAD_DIM = WIDTH // HEADS
EPS, ROPE_BASE = 1e-5, 10000.0
START, END = "<|im_start|>", "<|im_end|>"
CHAT = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
BATCH, LEARNING_RATE, WARM_UP, REQUEST_WEIGHT = 32, 3e-3, 100, 0.2
SETTLE = 0.3  # share of the steps in which the rate falls to nothing


class Norm(nn.Module):
    """x / rms(x) * w."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (WIDTH,), self.weight, EPS)


def rotate(x: Tensor) -> Tensor:
    """Turn adjacent pairs of (n, h, t, d) by their position: the order in which GGUF's llama stores heads."""
    t, d = x.shape[-2:]
    angle = torch.arange(t)[:, None] * ROPE_BASE ** (-torch.arange(0, d, 2) / d)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()
    return torch.stack(turned, -1).flatten(-2)


class Layer(nn.Module):
    """Attention with shared key-value heads, then a gated feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.attn_norm, self.ffn_norm = Norm(), Norm()
        self.attn_q = nn.Linear(WIDTH, HEADS * HEAD_DIM, bias=False)
        self.attn_k = nn.Linear(WIDTH, KV_HEADS * HEAD_DIM, bias=False)
        self.attn_v = nn.Linear(WIDTH, KV_HEADS * HEAD_DIM, bias=False)
        self.attn_output = nn.Linear(HEADS * HEAD_DIM, WIDTH, bias=False)
        self.ffn_gate = nn.Linear(WIDTH, FFN, bias=False)
        self.ffn_up = nn.Linear(WIDTH, FFN, bias=False)
        self.ffn_down = nn.Linear(FFN, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        h = self.attn_norm(x)
        q = rotate(self.attn_q(h).view(n, t, HEADS, HEAD_DIM).transpose(1, 2))
        k = rotate(self.attn_k(h).view(n, t, KV_HEADS, HEAD_DIM).transpose(1, 2))
        v = self.attn_v(h).view(n, t, KV_HEADS, HEAD_DIM).transpose(1, 2)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.attn_output(seen.transpose(1, 2).reshape(n, t, HEADS * HEAD_DIM))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Llama(nn.Module):
    """Ids (n, t) to logits (n, t, vocab); the head is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(VOCAB, WIDTH)
        self.blk = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.output_norm = Norm()
        for name, p in self.named_parameters():
            if p.dim() == 2:
                deep = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(p, std=0.06 / (math.sqrt(2 * LAYERS) if deep else 1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_embd(ids)
        for layer in self.blk:
            x = layer(x)
        return F.linear(self.output_norm(x), self.token_embd.weight)


def train_tokenizer(texts: list[str]) -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB,
            special_tokens=[START, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tok


def prompt_of(request: str) -> str:
    return f"{START}user\n{request}{END}\n{START}assistant\n"


def batches(tok: Tokenizer, source: Dialogues, seed: int, steps: int) -> "list[tuple[Tensor, Tensor]]":
    """Per step ids (n, t) and the weight of each as a target; dialogues of like length stand together."""
    made = []
    stream = source(seed)
    order = torch.Generator().manual_seed(seed)
    while len(made) < steps:
        rows = []
        for _ in range(BATCH * 32):
            request, answer = next(stream)
            head, tail = tok.encode(prompt_of(request)).ids, tok.encode(answer + END).ids
            rows.append((head + tail, [REQUEST_WEIGHT] * len(head) + [1.0] * len(tail)))
        rows = sorted((r for r in rows if len(r[0]) <= CONTEXT), key=lambda r: len(r[0]))
        groups = []
        for start in range(0, len(rows) - BATCH + 1, BATCH):
            group = rows[start : start + BATCH]
            longest = len(group[-1][0])
            ids = torch.tensor([i + [0] * (longest - len(i)) for i, _ in group])
            groups.append((ids, torch.tensor([w + [0.0] * (longest - len(w)) for _, w in group])))
        made += [groups[int(i)] for i in torch.randperm(len(groups), generator=order)]
    return made[:steps]


def train(model: Llama, data: "list[tuple[Tensor, Tensor]]") -> None:
    decay = [p for p in model.parameters() if p.dim() == 2]
    plain = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        betas=(0.9, 0.98),
    )
    began = time.monotonic()
    for step, (ids, weight) in enumerate(data):
        rate = min(1.0, (step + 1) / WARM_UP, (1 - step / len(data)) / SETTLE)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        logits = model(ids[:, :-1])
        each = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        target = weight[:, 1:].flatten()
        loss = (each * target).sum() / target.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == len(data) - 1:
            print(f"step {step:5d}  loss {loss.item():.4f}  {time.monotonic() - began:6.0f} s", flush=True)


@torch.no_grad()
def answer(model: Llama, tok: Tokenizer, request: str) -> str:
    ids = tok.encode(prompt_of(request)).ids
    start = len(ids)
    end = tok.token_to_id(END)
    while len(ids) < CONTEXT:
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == end:
            break
    return str(tok.decode(ids[start:], skip_special_tokens=True))


def score(model: Llama, tok: Tokenizer, source: Dialogues, seed: int, count: int) -> float:
    """Share of unseen requests whose action lines are exactly right."""
    stream = source(seed)
    right = 0
    for i in range(count):
        request, wanted = next(stream)
        got = answer(model, tok, request)
        right += action_lines(got) == action_lines(wanted)
        if i < 10:
            print(f"> {request}\n{got}")
    return right / count


def write(path: Path, model: Llama, tok: Tokenizer) -> None:
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("tiny-home")
    w.add_description("A model of a small home: a request, then an answer and one line per action.")
    w.add_license("MIT")
    w.add_block_count(LAYERS)
    w.add_context_length(CONTEXT)
    w.add_embedding_length(WIDTH)
    w.add_feed_forward_length(FFN)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_rope_dimension_count(HEAD_DIM)
    w.add_rope_freq_base(ROPE_BASE)
    w.add_layer_norm_rms_eps(EPS)
    w.add_vocab_size(VOCAB)
    by_id = sorted(tok.get_vocab().items(), key=lambda item: item[1])
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list([text for text, _ in by_id])
    w.add_token_types([3 if text in (START, END) else 1 for text, _ in by_id])
    w.add_token_merges([" ".join(pair) for pair in merges_of(tok)])
    w.add_eos_token_id(tok.token_to_id(END))
    w.add_add_bos_token(False)
    w.add_chat_template(CHAT)
    for name, p in model.state_dict().items():
        w.add_tensor(name, p.numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def merges_of(tok: Tokenizer) -> "list[tuple[str, str]]":
    """The merges of a tokenizer, best first."""
    return [tuple(m) for m in json.loads(tok.to_str())["model"]["merges"]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--piles", type=Path, required=True, help="home-llm's data/piles/english")
    parser.add_argument("--out", type=Path, required=True, help="the GGUF to write, in float32")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=4)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    source = Dialogues(args.piles)
    stream = source(args.seed)
    tok = train_tokenizer([f"user\n{q}\nassistant\n{a}" for q, a in (next(stream) for _ in range(20000))])
    model = Llama()
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    train(model, batches(tok, source, args.seed + 1, args.steps))
    model.eval()
    write(args.out, model, tok)
    print(f"actions right in {100 * score(model, tok, source, 10_000, 300):.1f} % of 300 unseen requests")


if __name__ == "__main__":
    main()
