"""A language model of half a megabyte with random weights, and a server of llama.cpp's that serves it.

Nothing is downloaded: the weights are drawn here. What such a model says makes no sense, but it is served as any other:
with real tokens, streams, grammars, keys and limits. It needs ``xllamacpp``, ``gguf`` and ``numpy``.

    python tests/models/tiny.py FILE chat KEY      serves FILE, made if it is not there, and prints the address
    python tests/models/tiny.py FILE embeddings
"""

import sys
import threading
from pathlib import Path
from typing import Any

WIDTH, HEADS, BLOCKS, INNER, CONTEXT = 64, 4, 2, 128, 2048
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}<|assistant|>"


def vocabulary() -> tuple[list[str], list[int], list[float]]:
    """Return the tokens, their kinds and scores: three of control, each byte, each printable character."""
    import gguf

    kind = gguf.TokenType
    tokens, kinds = ["<unk>", "<s>", "</s>"], [kind.UNKNOWN, kind.CONTROL, kind.CONTROL]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    kinds += [kind.BYTE] * 256
    plain = [chr(code) for code in range(33, 127)] + ["\u2581"]
    return tokens + plain, kinds + [kind.NORMAL] * len(plain), [0.0] * len(tokens) + [-1.0] * len(plain)


def write(path: Path) -> None:
    """Write the model to *path*."""
    import gguf
    import numpy as np

    tokens, kinds, scores = vocabulary()
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), "llama")
    for fact, value in {
        "name": "tiny", "context_length": CONTEXT, "embedding_length": WIDTH, "block_count": BLOCKS,
        "feed_forward_length": INNER, "head_count": HEADS, "head_count_kv": HEADS, "layer_norm_rms_eps": 1e-5,
        "rope_dimension_count": WIDTH // HEADS, "vocab_size": len(tokens), "file_type": 0,
        "tokenizer_model": "llama", "token_list": tokens, "token_scores": scores, "token_types": kinds,
        "bos_token_id": 1, "eos_token_id": 2, "unk_token_id": 0, "add_bos_token": True, "chat_template": TEMPLATE,
    }.items():  # fmt: skip
        getattr(writer, f"add_{fact}")(value)

    def add(name: str, *shape: int) -> None:
        drawn = rng.standard_normal(shape) * 0.2 if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(f"{name}.weight", drawn.astype(np.float32))

    add("token_embd", len(tokens), WIDTH)
    add("output_norm", WIDTH)
    add("output", len(tokens), WIDTH)
    for block in range(BLOCKS):
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{block}.{name}", WIDTH)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{block}.{name}", WIDTH, WIDTH)
        for name, shape in {"ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}.items():
            add(f"blk.{block}.{name}", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(path: Path, what: str, key: str) -> Any:
    """Serve the model at *path*, and print the address."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 8192, 4, 1
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.warmup, params.use_jinja = False, True
    if key:
        params.api_keys = [key]
    if what == "embeddings":
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    return server


if __name__ == "__main__":
    file, kind_of, *rest = sys.argv[1:]
    if not Path(file).exists():
        write(Path(file))
    running = serve(Path(file), kind_of, rest[0] if rest else "")
    threading.Event().wait()
