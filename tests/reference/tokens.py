"""Token ids of awkward texts by CLIP's vocabulary, as two environments of transformers make them.

    .venv/bin/python tokens.py clip FIXTURE           transformers 5, which this project follows
    hosted/.venv/bin/python tokens.py hosted FIXTURE  transformers 4.28 without ftfy, as in the hosted model

Each writes its own ids into FIXTURE (`../fixtures/clip-tokens.json`) and leaves those of the other. The vocabulary is that of
`crates/sd2/src/tokenizer/clip-merges.bin`; padding is that of Stable Diffusion 2.
"""

import json
import struct
import sys
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer

from texts import AWKWARD_TEXTS, MORE_AWKWARD_TEXTS

MERGES = Path(__file__).parents[2] / "crates/sd2/src/tokenizer/clip-merges.bin"
START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path) -> None:
    """Writes the tokenizer of Stable Diffusion 2 as its repository has it."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    tokens, merges = symbols + [symbol + "</w>" for symbol in symbols], []
    for left, right in struct.iter_unpack("<HH", MERGES.read_bytes()):
        merges.append(f"{tokens[left]} {tokens[right]}")
        tokens.append(tokens[left] + tokens[right])
    tokens += [START, END]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    special = {
        key: {"content": token, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        for key, token in {"bos_token": START, "eos_token": END, "unk_token": END}.items()
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special | {"pad_token": "!"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77, "pad_token": "!",
        "tokenizer_class": "CLIPTokenizer",
        **{key: value | {"__type": "AddedToken"} for key, value in special.items()},
    }))


def main() -> None:
    words, fixture = sys.argv[1], Path(sys.argv[2])
    texts = [*AWKWARD_TEXTS, *MORE_AWKWARD_TEXTS]
    known = {case["text"]: case for case in json.loads(fixture.read_text())} if fixture.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    cases = []
    for text in texts:
        ids = tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids
        # What follows the end is padding.
        length = len(ids)
        while length > 1 and ids[length - 1] == ids[-1] and ids[-1] != tokenizer.eos_token_id:
            length -= 1
        cases.append(known.get(text, {"text": text}) | {words: ids[:length]})
    fixture.write_text("[\n" + ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
