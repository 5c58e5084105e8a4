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

# Those that tell the tokenizers of 2023 and of today apart: apostrophes, accents, dashes, dots, CJK, and where Unicode is odd.
MORE_AWKWARD_TEXTS = [
    "a photo of a mountain range at twilight", "You should've done this", "you're, don't, her's", "a shepherd's house",
    "r\u00e9sum\u00e9 caf\u00e9 na\u00efve", "\u591c\u306e\u5c71 \u96ea", "\ubc24\uc758 \uc0b0", "\u00dcn\u00efcode \u00c4\u00d6\u00dc stra\u00dfe", "rock 'n' roll", "it's 5 o'clock",
    "\u201csmart quotes\u201d \u2013 and\u2026 ellipsis", "<cat-toy>", "hello!!! world!", "a  b\tc\nd", "\ufb01ne \ufb02ight", "\u2167 \u00bd \u2460",
    "\U0001f3d4\ufe0f snow \U0001f468\u200d\U0001f469\u200d\U0001f467", "don\u2019t stop", "I'd've", "c'est l'\u00e9t\u00e9", "1990's 80s 4k", "&amp; &lt;b&gt;", "x\u200by", "A\u2003B",
    "e\u0301te\u0301", "a castle, high-detail -- 8k!!!", "a well-lit room; trees, (masterpiece:1.3)", "hello...world", "S\u00e3o Paulo skyline",
    "Z\u00fcrich at night", "Mt. Fuji (\u5bcc\u58eb\u5c71)", "1920x1080, 35mm",
    "\u0130stanbul", "A\xa0B",
    # apostrophes
    "the fisherman's boats' sails", "o'clock O'Brien d'Artagnan", "y'all'd've", "'tis the season", "rock'n'roll's", "ain't won't shan't", "dog's, cat's",
    "it's it\u2019s it\u02bcs it\uff07s", "'quoted' 'words'", "l'\u0153uvre d'art", "l'h\u00f4tel d'\u00e9t\u00e9", "'s's's", "x'", "'", "''", "\u2018a\u2019",
    # accents of many scripts
    "\u00e0\u00e1\u00e2\u00e3\u00e4\u00e5 \u00e8\u00e9\u00ea\u00eb", "\u00e7\u0107\u010d \u0159\u0161\u017e", "\u0141\u00f3d\u017a Gda\u0144sk", "\u00d8resund \u00c5lesund", "\u0150szi \u00fat", "\u0111\u01b0\u1eddng ph\u1ed1 H\u00e0 N\u1ed9i",
    "\u0391\u03b8\u03ae\u03bd\u03b1 \u03c4\u03b7 \u03bd\u03cd\u03c7\u03c4\u03b1", "\u0439\u043e\u0433 \u0401\u043b\u043a\u0430", "\u0915\u0947 \u092a\u0939\u093e\u0921\u093c", "\u0e20\u0e39\u0e40\u0e02\u0e32 \u0e17\u0e35\u0e48", "\u05d4\u05b7\u05e8\u05b4\u05d9\u05dd", "\u0627\u0644\u062c\u0650\u0628\u0627\u0644", "\u1e9b\u0323 \u1e69", "n\u0303 o\u0308\u0304",
    "\u01d6\u01d8\u01da\u01dc", "\u1d15\u1d49\u1d43", "\u0130I\u0131i", "\ufb2f\ufb31", "\u1ec7\u1ed9\u1ee3", "Stra\u00dfe GRO\u1e9eE", "\u00c6\u00e6\u0152\u0153\u00de\u00fe", "\u0149 \u01f0 \u0390", "\u212b\u2126\u212a",
    # dashes, dots, brackets, marks
    "--", "---", "----", "a--b", "a -- b", "sci-fi-like", "\u2014\u2014", "a\u2013b\u2014c\u2015d", "state-of-the-art", "....", "..", "wait... what..?", "?!?!", "?? !! ..",
    "(((very) detailed))", "[a|b:0.5]", "{x}{y}", "a,,b;;c::d", "\"quote\" \u00abquote\u00bb", "50%", "#1 @two &three", "a_b__c", "path/to\\file", "~~~ ^^^ ```", "a*b**c", "$$$",
    "=> -> <=", "<<a>>", "+-=", "\u00b6\u00a7\u2020\u2021", "\u2022 item", "\u00b0C", "\u20ac100", "\u00a35.99", "\u00d7\u00f7\u00b1", "\u2122\u00ae\u00a9", "\u3001\u3002\u300c\u300d", "\uff01\uff1f\uff0c", "\u00bfqu\u00e9?", "\u0964\u0965",
    # CJK, kana, Hangul and others beside latin
    "\u96ea\u5c71\u306e\u65e5\u306e\u51fa", "Tokyo\u6771\u4eac\u30bf\u30ef\u30fc", "\u30ab\u30d5\u30a7", "\uff76\uff8c\uff6a", "\ud55c\uad6d\uc758 \uac00\uc744", "\uc11c\uc6b8tower", "\u5317\u4eac 2024", "\u9f98\u9fa0\u4dbf", "\U00020000\U0002a6d6", "\uf900\ufa2d", "\u3400a\u3401",
    "\u4e00\u4e8c\u4e09 one two three", "\u3042a\u3044b", "\u31f0\u3200", "\u2e80\u2f00", "\ua000\ua001", "\u1100\u1161\u11a8", "\u0e01\u0e33", "\u1019\u103c\u1014\u103a", "\u10d7\u10d1\u10d8", "\u0531\u0580\u0565\u0582", "\u13a0\u13f8",
    # numbers
    "1,000,000.50", "3.14", "1st 2nd 3rd", "\u0661\u0662\u0663", "\u0967\u0968\u0969", "\u2160\u2161\u2162", "\u2153 cup", "10\u00b2 H\u2082O", "\U0001d7d8\U0001d7d9", "007", "1e10", "0x1F", "12:30", "2024-01-31",
    # emoji and symbols, some newer than Python's tables
    "\U0001f304\U0001f3d5\ufe0f", "\U0001f926\U0001f3fc\u200d\u2642\ufe0f", "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", "\U0001fae8 shaking", "\U0001fa75 heart", "\u2600\ufe0f\u2601\ufe0f", "\u2b50 star", "\u2192 right", "\u266b music", "\U0001f600!", "a\U0001f600b", "\u260e\ufe0f", "\U0001f3f4\u200d\u2620\ufe0f",
    # spaces and controls
    "a\u00a0b", "a\u202fb", "a\u2009b", "a\u3000b", "a\u2028b", "a\u2029b", "a\u0085b", "a\x0bb", "a\x0cb", "a\x1cb", "a\x1fb", "a\x00b", "a\x7fb", "a\u00adb", "a\u200cb", "a\u200db", "a\u2060b", "a\ufeffb", "a\u200eb", "a\u202eb",
    "a\ufffdb", "a\ue000b", "a\u0378b", "a\u180eb", "\u2800braille", "a\u034fb", "\u115fa",
    # special tokens beside what is cut
    "<|endoftext|>'s", "caf\u00e9<|endoftext|>caf\u00e9", "<|STARTOFTEXT|>", "!'s!", "don't!stop", "\u00e9!\u00e9", "a!\u0301", "<|endoftext|", "!\u200d!", "\u5c71!\u5ddd", "!!\u2014!!",
    # long, with words that are cut otherwise
    "it's a shepherd's house, " * 12, "caf\u00e9 " * 80, "\u5c71\u5ddd" * 50, "--- " * 40, "don't " * 60,
]
