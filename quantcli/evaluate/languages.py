"""What a stretch of text seems to be written in: by its script, and in Latin letters by its commonest words.

For tables of figures by language: a guess from a few dozen words, and "other" where they don't say enough.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

FEWEST_LETTERS = 12
FEWEST_WORDS = 2  # of a language's commonest
CODE_MARKS = frozenset("{}();=<>[]_#/\\|$&*")
CODE_SHARE = 0.09  # of all characters
OTHER, CODE = "other", "code and data"

#: words that are frequent in one language and rare in the others
WORDS = {
    "English": "the of and to is that was for with as it on be this are from not have which",
    "German": "der die und das den von zu mit sich des auf für ist im dem nicht ein eine auch werden",
    "French": "le les des et est dans une du que pour qui sur au pas par plus ce avec sont il",
    "Spanish": "el los las y del se por con una para su como más al lo pero este desde cuando",
    "Portuguese": "o os do da em um uma não com para as dos ao é mais pelo como mas foi ou",
    "Italian": "il di che è per della con non si gli nel sono le del una più alla anche ma i",
    "Dutch": "het een van dat op te zijn met voor niet aan er ook als maar bij naar worden deze",
    "Swedish": "och att det som är på för med av inte till den ett har om var kan från men",
    "Polish": "w i na się z do nie to że jest od przez po jak dla oraz lub ale tego",
    "Czech": "a se na je v že s do i o jako k pro by ale od byl nebo podle který",
    "Turkish": "ve bir bu da için ile de olarak çok daha olan gibi en ne ise kadar sonra",
    "Indonesian": "yang dan di dengan untuk dari pada ini dalam tidak itu akan adalah ke oleh juga",
    "Vietnamese": "của và là có trong được các một cho không với những này đã người khi để",
}
#: beginnings of Unicode's names of letters, and what they are called
SCRIPTS = {
    "LATIN": "other in Latin letters",
    "CYRILLIC": "in Cyrillic letters",
    "GREEK": "Greek",
    "ARABIC": "in Arabic letters",
    "HEBREW": "Hebrew",
    "DEVANAGARI": "in Devanagari",
    "BENGALI": "Bengali",
    "TAMIL": "Tamil",
    "TELUGU": "Telugu",
    "GEORGIAN": "Georgian",
    "ARMENIAN": "Armenian",
    "ETHIOPIC": "Amharic",
    "THAI": "Thai",
    "KHMER": "Khmer",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "HANGUL": "Korean",
    "CJK": "Chinese",
}
_KNOWN = {name: frozenset(words.split()) for name, words in WORDS.items()}


def guess(text: str) -> str:
    """The language of a stretch, the script where only that is known, `CODE`, or `OTHER`."""
    marks = sum(letter in CODE_MARKS for letter in text)
    if text and marks / len(text) >= CODE_SHARE:
        return CODE
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    del scripts[""]
    if scripts.total() < FEWEST_LETTERS:
        return OTHER
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > scripts.total() // 10:
        return SCRIPTS["HIRAGANA"]
    ((most, _),) = scripts.most_common(1)
    return _by_words(text) or SCRIPTS[most] if most == "LATIN" else SCRIPTS[most]


def _by_words(text: str) -> str | None:
    words = re.findall(r"[^\W\d_]+", text.lower())
    counts = {name: sum(word in known for word in words) for name, known in _KNOWN.items()}
    first, second = sorted(counts, key=counts.__getitem__, reverse=True)[:2]
    return first if counts[first] >= FEWEST_WORDS and counts[first] > counts[second] else None


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "")
    return next((script for script in SCRIPTS if name.startswith(script)), "")
