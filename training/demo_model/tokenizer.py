"""A byte-level BPE in the files of a CLIPTokenizer, learnt from captions. Every byte is a symbol, so that any text has tokens."""

import collections
import itertools
import json
import re

import numpy as np
from transformers import CLIPTokenizer

from . import captions, scene
from .work import Work

# Words that people write and no caption has: they should not fall to single letters.
MORE_WORDS = """sky cloud rain storm bird tree green blue red yellow white black gold golden pink purple light star stone rock road house bridge castle
village garden flower pine conifer jungle savanna river valley cherry blossom blossoms northern lights aurora volcano waterfall island cliff canyon art
style digital vintage film magical epic cinematic moody warm cold wide high quality detailed day sunrise lightning ice boat ship animals people skiers
coral reef beautiful sunny moonlit starry""".split()
SPLIT = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def byte_symbols() -> dict[int, str]:
    """A printable character for each byte, as GPT-2 and CLIP have them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


def learn(words: dict[str, int], limit: int) -> list[tuple[str, str]]:
    """The most frequent pair of neighbours, again and again, until words are whole or there are `limit` merges."""
    symbols = byte_symbols()
    split = {w: [symbols[b] for b in w.encode()] for w in words}
    for parts in split.values():
        parts[-1] += "</w>"
    merges = []
    while len(merges) < limit:
        pairs = collections.Counter()
        for word, parts in split.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for parts in split.values():
            i = 0
            while i + 1 < len(parts):
                if (parts[i], parts[i + 1]) == best:
                    parts[i : i + 2] = [parts[i] + parts[i + 1]]
                i += 1
    return merges


def run(work: Work, samples: int = 40_000, limit: int = 1100):
    """Writes the bundle's `tokenizer`."""
    words = collections.Counter()
    for k in range(samples):
        rng = np.random.default_rng([4, k])
        words.update(SPLIT.findall(captions.caption(rng, scene.sample(rng))[0].lower()))
    words.update(dict.fromkeys(MORE_WORDS + captions.vocabulary(), 3))
    merges = learn(dict(words), limit)
    base = list(byte_symbols().values())
    vocabulary = [*base, *(c + "</w>" for c in base), *(a + b for a, b in merges), "<|startoftext|>", "<|endoftext|>"]
    folder = work.bundle / "tokenizer"
    folder.mkdir(exist_ok=True)

    def write(name: str, content):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2 if "vocab" not in name else None))

    def special(text: str) -> dict:
        return {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    start, end = special("<|startoftext|>"), special("<|endoftext|>")
    write("vocab.json", {token: index for index, token in enumerate(vocabulary)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    write("special_tokens_map.json", {"bos_token": start, "eos_token": end, "pad_token": "!", "unk_token": end})
    added = {"__type": "AddedToken"}
    write(
        "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": added | start,
            "do_lower_case": True,
            "eos_token": added | end,
            "errors": "replace",
            "model_max_length": 77,
            "pad_token": "!",
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": added | end,
        },
    )
    print(f"tokenizer: {len(vocabulary)} tokens, {len(merges)} of them merged")


def load(work: Work) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(work.bundle / "tokenizer")


def encode(tokenizer: CLIPTokenizer, texts: list[str]) -> np.ndarray:
    """int64 [texts, 77]."""
    return np.array(tokenizer(texts, padding="max_length", max_length=77, truncation=True).input_ids, np.int64)
