"""Texts that are awkward to tokenize; what the reference's tokenizer makes of each is a fixture."""

AWKWARD_TEXTS = [
    # plain, and the edges
    "", " ", "\n", "a", "a photo of a mountain lake at sunset", "  two leading, two trailing  ", "double  spaces   and more",
    "tabs\tand\nnew\r\nlines", "trailing newline\n", "\ta", "mountain , lake", "mountain,lake", "a.b.c", "...", "a... b",
    # capitals, accents (composed, decomposed, several marks), and letters whose lower case is special
    "A PHOTO OF A MOUNTAIN", "CamelCase MiXeD", "caf\u00e9 na\u00efve", "cafe\u0301 nai\u0308ve", "CAF\u00c9", "CAFE\u0301", "\u1e69 s\u0323\u0307 s\u0307\u0323",
    "\u00c5ngstr\u00f6m \u212b", "stra\u00dfe STRASSE \u1e9e", "\u0130stanbul \u0131", "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u039f\u0394\u039f\u03a3", "\u01c5 \u01f2", "\ufb01sh \ufb02ag", "\uff26\uff55\uff4c\uff4c width",
    # other scripts, digits, symbols
    "\u5bcc\u58eb\u5c71\u306e\u98a8\u666f", "\ud55c\uad6d\uc5b4", "\u1112\u1161\u11ab", "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u041f\u0435\u0439\u0437\u0430\u0436", "\u0639\u0631\u0628\u064a", "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e44\u0e17\u0e22",
    "4k 8K 1024x768", "3.14159 1,000", "\u00bd \u00b2 \u2167 \u0663", "50% off #1 @home", "a_b-c/d\\e", "(masterpiece:1.3), [detailed]", "$5 \u20ac10 \u00a37", "x=y+z", "\u201cquoted\u201d \u2018text\u2019 \u2014 dash",
    # emoji: alone, with a skin tone, joined, a flag, a variation selector
    "\U0001f600", "sun \U0001f305 rise", "\U0001f44d\U0001f3fd", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f1ef\U0001f1f5", "\u2764\ufe0f",
    # contractions
    "it's", "IT'S", "we're WE'RE", "they've i'm she'll he'd don't", "'s", "''s", "rock'n'roll", "'sunset'", "the dogs' '90s", "it\u2019s", "a'reb", "!'s", "'S 'T 'RE",
    # the padding token of Stable Diffusion 2 inside a text
    "!", "!!", "! !! !!!", "wow!", "wow!!", "!wow", "wow! a lake", "wow ! a lake", "what?!", "!?", "hi!there", "\uff01", "\u00a1hola!", " ! ",
    # the other special tokens inside a text
    "<|endoftext|>", "<|startoftext|>", "a <|endoftext|> b", "a<|endoftext|>b", "<|startoftext|>a lake<|endoftext|>", "<|ENDOFTEXT|>",
    "<|EndOfText|> b", "A<|STARTOFTEXT|>B", "<|endoftext|><|endoftext|>", "<|endoftext", "|endoftext|>", "<| endoftext |>", "<|endoftext|>!",
    "</w>", "a</w>", "<|pad|>", "[PAD] <pad>",
    # spaces and controls that are not plain
    "non\u00a0breaking", "\u00a0a\u00a0", "zero\u200bwidth", "joiner\u200djoined", "\ufeffbom", "thin\u2009space em\u2003space", "ideographic\u3000space",
    "line\u2028separator paragraph\u2029separator", "next\u0085line", "vertical\x0btab form\x0cfeed", "file\x1cunit\x1fseparator",
    "null\x00byte", "bell\x07 escape\x1b[0m", "delete\x7f", "soft\u00adhyphen", "right\u202eto left", "mongolian\u180evowel", "private\ue000use", "\ufffd",
    # longer than a model's 77 tokens
    "mountain " * 74 + "lake", "mountain " * 75, "mountain " * 76, "mountain " * 200, "a" * 300, "lake, " * 60, "\U0001f600" * 40, "!" * 100,
    "a " * 80 + "<|endoftext|>",
]
