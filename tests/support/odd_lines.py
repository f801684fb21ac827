"""Lines that tokenizers stumble over: made of odd Unicode, the same for the same seed."""

import random
import unicodedata


def _characters(*spans: tuple[int, int]) -> list[str]:
    every = (chr(code) for first, last in spans for code in range(first, last + 1))
    return [each for each in every if unicodedata.category(each) not in ("Cn", "Cs", "Co")]


_WORDS = "The old cat sleeps quietly at station Élodie Straße déjà à Paris Москве l'aime 42"
_SPACES = " \t\u00a0\u1680\u2002\u2009\u202f\u205f\u3000\u2028\u2029\u0085"
_ALPHABETS = {
    "Arabic": _characters((0x621, 0x652), (0xFE70, 0xFEFC)),
    "Hebrew": _characters((0x591, 0x5F4), (0xFB1D, 0xFB4F)),
    "Devanagari": _characters((0x900, 0x97F)),
    "Thai": _characters((0xE01, 0xE5B)),
    "CJK": _characters((0x3041, 0x30FF), (0x4E00, 0x4E80), (0xF900, 0xF930), (0x3300, 0x33FF)),
    "Hangul": _characters((0xAC00, 0xAC60), (0x1100, 0x11FF), (0x3131, 0x318E)),
    "Latin": _characters((0xC0, 0x24F), (0x1E00, 0x1EFF), (0x1C4, 0x1CC)),
    "Greek and Cyrillic": _characters((0x370, 0x4FF), (0x1F00, 0x1FFF)),
    "marks": [letter + mark for letter in "aeoü" for mark in _characters((0x300, 0x36F))],
    "emoji": [*"😀👍🏽❤️👩🚀🏳🌈🇫🇷", "👩\u200d👩\u200d👧", "🏳️\u200d🌈", "1\ufe0f\u20e3"],
    "ligatures": [*"ﬁﬂﬀﬃﬄﬅﬆœæĳǆ", "ﬁne"],
    "full width": _characters((0xFF01, 0xFFEE)),
    "compatible": [*"①⑳½²³ªº™℃Ⅷ㎏㏒…‥ſıİẞ", "ｶﾞ", "A\u030a"],
    "no width": [*"\u200b\u200c\u200d\u2060\ufeff\u00ad\u061c\u200e\u202e\u2066"],
    "controls": _characters((0x01, 0x1F), (0x7F, 0x9F)),
    "spaces": [*_SPACES, "  ", "   "],
    "sentencepiece": ["▁", "▁▁", "▁the", "a▁b", "<0x41>", "<n>", "⁇", " ⁇ "],
    "digits": ["3.14", "1,000", "1 000", "١٢٣", "９９", "0x1F", "10%", "№5"],
    "addresses": ["https://a.example/b?c=d&e=%20#f", "me@a.example", "C:\\x", "@who", "#tag"],
    "quotes": [*"\"'`«»„“”‘’‹›", "''", "``", "``a''", "--", "—", "( a )"],
    "languages": [">>xyz<<", ">> <<", ">>", "<<", "__xx__", "fr", "xx_Latn"],
    "beyond": [*"\U0001d400\U0001d7d8\U00020000\U000e0001\ufffd\ufffc\U0010fffd"],
}


def odd_lines(count: int, seed: int = 0) -> list[str]:
    """Returns lines of words, odd characters and odd spaces, some of them in NFD or NFKC."""
    draw = random.Random(seed)
    kinds = list(_ALPHABETS.values())

    def token() -> str:
        if draw.random() < 0.4:
            return draw.choice(_WORDS.split())
        kind = draw.choice(kinds)
        return "".join(draw.choices(kind, k=draw.randint(1, 4)))

    def line() -> str:
        parts = [token() for _ in range(draw.randint(1, 12))]
        spaces = [draw.choice(("", " ", " ", " ", "  ", draw.choice(_SPACES))) for _ in parts]
        text = "".join(part + space for part, space in zip(parts, spaces, strict=True))
        text = draw.choice(("", "", "", " ", "\u3000", ">>fra<< ", ">>fra<<", ">>xyz<< ")) + text
        form = draw.choice(("NFC", "NFD", "NFKC", "", ""))
        return unicodedata.normalize(form, text) if form else text  # type: ignore[arg-type]

    return [line() for _ in range(count)]
