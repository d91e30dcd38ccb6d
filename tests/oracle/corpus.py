# SPDX-License-Identifier: Apache-2.0
"""Text that finds tokenizer bugs: prose and code in many scripts, emoji sequences, every Unicode category,
whitespace runs, control tokens inside text, and degenerate lines. Deterministic for a seed and a Python version."""
import glob
import os
import random
import sys
import sysconfig
import unicodedata

PROSE = """
The quick brown fox doesn't jump; it's 1,234.56 dollars' worth—isn't it? They'll say "I'D'VE" and we're DON'T SHOUT'S.
Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Straße, STRASSE, Maß und Fußgängerübergänge.
Voix ambiguë d’un cœur qui, au zéphyr, préfère les jattes de kiwis. L'été, c'est fini — n'est-ce pas ? « Oui » !
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío, ¿añoraba a su querido cachorro? ¡Sí!
Příliš žluťoučký kůň úpěl ďábelské ódy. Zażółć gęślą jaźń. Árvíztűrő tükörfúrógép. Şişli'de çiğ köfte, İstanbul ığdır.
Съешь же ещё этих мягких французских булок, да выпей чаю. Щёлкни, пожалуйста: объём 42 м³, №7.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Ταχίστη αλώπηξ βαφής ψημένη γη, δρασκελίζει υπέρ νωθρού κυνός· τέλος.
דג סקרן שט בים מאוכזב ולפתע מצא לו חברה. שָׁלוֹם עֲלֵיכֶם, מה שלומך?
نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق. السَّلامُ عَلَيْكُم ١٢٣٤٥٦، كيف الحال؟
یک متن فارسی با نیم‌فاصله: می‌خواهم کتاب‌ها را بخوانم ۱۲۳. اردو میں لکھا ہوا ایک جملہ۔
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले विष्णुवतार भगवान श्रीराम। क्षत्रिय, ज्ञान १२३।
আমি বাংলায় গান গাই; সে আমার মায়ের ভাষা। ১২৩৪। ਪੰਜਾਬੀ ਵਿੱਚ ਇੱਕ ਵਾਕ। ગુજરાતી ભાષામાં એક વાક્ય.
யாமறிந்த மொழிகளிலே தமிழ்மொழி போல் இனிதாவது எங்கும் காணோம். తెలుగు లో ఒక వాక్యం. ಕನ್ನಡದಲ್ಲಿ ಒಂದು ವಾಕ್ಯ. മലയാളത്തിൽ ഒരു വാചകം. සිංහල වාක්‍යයක්.
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ๑๒๓. ພາສາລາວ. ភាសាខ្មែរ។ မြန်မာစာ စာကြောင်း။ བོད་ཡིག་གི་ཚིག་གྲུབ།
天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。他说：“一二三四五，上山打老虎！”（完）《红楼梦》共120回。繁體中文與簡體不同。𠮷野家𪚥。
いろはにほへと ちりぬるを わかよたれそ つねならむ。吾輩は猫である。名前はまだ無い。ｶﾀｶﾅとカタカナ、がとが、１２３。
다람쥐 헌 쳇바퀴에 타고파. 키스의 고유조건은 입술끼리 만나야 하고. 한글 한글 각각 123.
ქართული ენა არის ლამაზი. Հայերեն նախադասություն։ አማርኛ ዓረፍተ ነገር። ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ. ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ. ⵜⴰⵎⴰⵣⵉⵖⵜ. ߒߞߏ. ᚠᛇᚻ᛫ᛒᛦᚦ. 𐌰𐍄𐍄𐌰. 𓀀𓂀𓃰.
Trăm năm trong cõi người ta, chữ tài chữ mệnh khéo là ghét nhau. Tiếng Việt tổ hợp: Tiê´ng Việt.
Ṣé ó dáa? Ẹ kú àárọ̀. Ɛyɛ papa. Kɛ wɔ̃. Ŝafi ĉiĥoraŭĵo. Þórr færði æði. Łódź. Ðuro. ŉ ǆ ﬁ ﬂ ﬃ ſs ẞ K Å Ω.
∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β = ¬(¬α ∨ β), ℕ ⊆ ℕ₀ ⊂ ℤ; x² + y² ≤ ½·π·√2 ≈ 1.11e−3 ± 5‰. 𝔸𝕓𝒸 𝟙𝟚𝟛 ① ⑳ Ⅻ ⅷ ㊿ ㍿ ¼ ٣ ௧ 〇 ９.
E-mail: foo.bar+baz@example.co.uk; URL https://example.org/a%20b?q=1&r=%E2%82%AC#frag; path C:\\\\Users\\\\x; v1.2.3-rc.4; 0xDEADBEEF; 1e-10; 12:34:56; $5.00; €3; ¥100; #hashtag @user.
""".strip().split("\n")

CODE = """
#include <stdio.h>
int main(int argc, char **argv) {
	for (int i = 0; i < 10; ++i) {
		printf("%d\\n", i * 0x1F);
	}
	return 0;
}
%%
def f(x: int, *args, **kw) -> "dict[str, Any]":
    if x != 0 and not kw:
        return {k: v for k, v in zip(args, range(len(args)))}
    # done


    raise ValueError(f"bad {x!r:>10}")
%%
const g = async ({a, ...b}) => { await fetch(`/api/${a}?x=${b?.c ?? "—"}`); /* ok */ };\r\nexport default g;\r\n
%%
SELECT t.id, COUNT(*) AS n FROM "tbl" t LEFT JOIN u ON u.t_id = t.id WHERE t.x LIKE '%\\_%' GROUP BY 1 HAVING n >= 2;
%%
{"key": ["value", null, true, -1.5e+10, "\\u00e9\\n"], "nested": {"a": {"b": []}}}
%%
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let v: Vec<&'static str> = vec!["a", "b"];
    println!("{:?}", v.iter().map(|s| s.len()).sum::<usize>());
    Ok(())
}
%%
<div class="x" style='a:b'>&lt;p&gt;Hi&nbsp;there<br/></div><!-- c -->
\\begin{equation}
  \\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}
\\end{equation}
%%
| a | b |
|---|:-:|
| `x` | **y** |

1. one
   - two
     * three

```python
print("x")
```
""".strip().split("\n%%\n")

EMOJI = [
    "😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🏴‍☠️", "🇩🇪🇯🇵🇧🇷", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "1️⃣2️⃣#️⃣", "❤️", "❤", "☺︎", "👩🏿‍🚀", "🧑‍🤝‍🧑", "👩‍❤️‍💋‍👨", "🤦🏼‍♂️", "©️®™", "🀄🃏", "🫠🫥", "⏰⌚", "🇦", "‍", "️", "🏽",
]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0",
          "\u1680", "\u180e", "\u2000", "\u2003", "\u2009", "\u200a", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f",
          "\u2060", "\u3000", "\ufeff", "    ", "\t\t", " \n", "\n ", "▁", " ▁"]
CONTRACTIONS = ["'s", "'S", "'t", "'T", "'re", "'RE", "'Re", "'ve", "'vE", "'m", "'M", "'ll", "'LL", "'d", "'D", "'ſ", "’s",
                "''s", "'sa", "'x", "'", "'1", "'lL"]
RANGES = [(0x20, 0x7F), (0xA0, 0x17F), (0x180, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F),
          (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF), (0x700, 0x7FF), (0x900, 0x97F), (0x980, 0xDFF), (0xE00, 0xFFF),
          (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x139F), (0x13A0, 0x167F), (0x1680, 0x17FF),
          (0x1800, 0x1CFF), (0x1D00, 0x1DFF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218F), (0x2190, 0x23FF),
          (0x2400, 0x27FF), (0x2800, 0x2BFF), (0x2C00, 0x2DFF), (0x2E00, 0x303F), (0x3040, 0x30FF), (0x3100, 0x4DBF),
          (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xF900, 0xFAFF), (0xFB00, 0xFDFF),
          (0xFE00, 0xFFFF), (0x10000, 0x103FF), (0x10400, 0x10FFF), (0x11000, 0x11FFF), (0x12000, 0x1247F),
          (0x16800, 0x16FFF), (0x1D000, 0x1D7FF), (0x1E000, 0x1EFFF), (0x1F000, 0x1FAFF), (0x20000, 0x2A6DF),
          (0x2F800, 0x2FA1F), (0xE0000, 0xE01EF), (0x10FF00, 0x10FFFF)]


def by_category():
    """General category -> its code points, lone surrogates (not text) excepted."""
    table = {}
    for cp in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(cp))
        if category != "Cs":
            table.setdefault(category, []).append(cp)
    return table


def source_files():
    """Real text on any machine with Python: its own library, and the C headers beside it."""
    stdlib = sysconfig.get_paths()["stdlib"]
    names = sorted(glob.glob(stdlib + "/*.py") + glob.glob(stdlib + "/*/*.py") + glob.glob(stdlib + "/*.txt"))
    return names + sorted(glob.glob("/usr/include/*.h"))


class Corpus:
    """Draws lines. control: the tokenizer's added tokens; decode: ids -> text, or None; ids: drawable ids."""

    def __init__(self, seed, control=(), decode=None, ids=()):
        self.rng = random.Random(seed)
        self.control = sorted(control) or ["<s>"]
        self.decode, self.ids = decode, list(ids)
        self.categories = by_category()
        self.files = source_files()
        self.text = ""
        makers = [self.prose, self.words, self.code, self.library, self.script, self.category, self.emoji, self.spaces,
                  self.controls, self.contractions, self.digits, self.marks, self.mixture]
        self.makers = makers + ([self.sampled] if decode else [])

    def pick(self, xs):
        return xs[self.rng.randrange(len(xs))]

    def prose(self):
        return " ".join(self.pick(PROSE) for _ in range(self.rng.randrange(1, 4)))

    def words(self):
        """Words of different scripts side by side, joined by anything."""
        pool = self.pick(PROSE).split() + self.pick(PROSE).split()
        return "".join(self.pick(pool) + self.pick([" ", " ", " ", "", "\n", "  ", "-", "_", "/"]) for _ in range(12))

    def code(self):
        return self.pick(CODE)

    def library(self):
        """A stretch of a real file."""
        while len(self.text) < 1000:
            with open(self.pick(self.files), encoding="utf-8", errors="replace") as f:
                self.text += f.read(200000)
        n = self.rng.randrange(20, 900)
        piece, self.text = self.text[:n], self.text[n:]
        if self.rng.random() < 0.02:
            self.text = ""
        return piece

    def characters(self, points, n):
        return "".join(chr(self.pick(points)) for _ in range(n))

    def script(self):
        low, high = self.pick(RANGES)
        points = range(low, high + 1)
        words = (self.characters(points, self.rng.randrange(1, 9)) for _ in range(self.rng.randrange(1, 15)))
        return " ".join(words)

    def category(self):
        """Every category at random, or a run of one."""
        names = sorted(self.categories)
        if self.rng.random() < 0.5:
            names = [self.pick(names), self.pick(names)]
        return "".join(chr(self.pick(self.categories[self.pick(names)])) for _ in range(self.rng.randrange(1, 40)))

    def emoji(self):
        return "".join(self.pick(EMOJI) + self.pick(["", "", " ", "a", "\n"]) for _ in range(self.rng.randrange(1, 12)))

    def spaces(self):
        fill = ["", "", "a", "B", "1", "٣", "?!", "é", "日", "'s", "<", "ab cd"]
        return "".join(self.pick(SPACES) * self.rng.choice([1, 1, 1, 2, 5]) + self.pick(fill) for _ in range(self.rng.randrange(1, 14)))

    def controls(self):
        """Control tokens whole, doubled, cut, glued to letters, spaces and newlines."""
        out = []
        for _ in range(self.rng.randrange(1, 7)):
            t = self.pick(self.control)
            form = self.rng.randrange(7)
            out.append({0: t, 1: t + t, 2: t[:-1], 3: t[1:], 4: t.upper(), 5: " " + t + " ", 6: t}[form])
            out.append(self.pick(["", " ", "  ", "\n", "x", "Hello, world", "1", "é", "▁", "<", ">"]))
        return "".join(out)

    def contractions(self):
        stems = ["I", "they", "WE", "don", "", " ", "é", "日", "9", "x_"]
        return "".join(self.pick(stems) + self.pick(CONTRACTIONS) + self.pick(["", " ", "\n", "."]) for _ in range(8))

    def digits(self):
        kinds = ["0123456789", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "²³¹½¼", "ⅠⅡⅫ", "𝟎𝟏𝟐", "一二三"]
        join = ["", "", ".", ",", " ", "  ", "-", "e", "x", "\n"]
        return "".join(self.characters([ord(c) for c in self.pick(kinds)], self.rng.randrange(1, 9)) + self.pick(join) for _ in range(8))

    def marks(self):
        """Letters under combining marks, in and out of canonical order: food for NFC."""
        marks = [*range(0x300, 0x345), 0x5B0, 0x64B, 0x93C, 0x3099, 0x1DC4, 0x20D0, 0x591]
        letters = "aeiouAEOnscyكहかハ각각"
        return "".join(self.pick(letters) + self.characters(marks, self.rng.choice([0, 1, 1, 2, 3])) for _ in range(self.rng.randrange(1, 20)))

    def sampled(self):
        """What random ids of the vocabulary spell."""
        return self.decode([self.pick(self.ids) for _ in range(self.rng.randrange(1, 30))])

    def mixture(self):
        return "".join(self.pick(self.makers[:-2])()[: self.rng.randrange(1, 30)] for _ in range(5))

    def line(self):
        return self.pick(self.makers)()


def degenerate(large):
    """Lines no generator draws; large: length of the longest."""
    lines = ["", " ", "\n", "a", "\x00", "\ufffd", "\ufeff", "é", "e\u0301", "日", "😀", "a\x00b", "\U0010ffff", "\x7f\x80\x9f"]
    lines += [" " * n for n in (2, 3, 7, 8, 31, 32, 100)] + ["\n" * n for n in (2, 3, 17)] + [" \n" * 9, "\t" * 40, "\r\n" * 6]
    lines += ["a" * n for n in (2, 63, 1000)] + ["ab" * 500, "1" * 100, "=" * 200, "." * 1000, "ё" * 333, "日" * 257, "😀" * 99]
    if large:
        lines += ["a" * large, " " * (large // 8), "\n" * (large // 64), "x " * (large // 16), "é" * (large // 16), "7" * (large // 32)]
    return lines


def lines(corpus, characters, large=0):
    """Degenerate lines first, then drawn ones until `characters` are reached."""
    out = degenerate(large)
    total = 0
    while total < characters:
        out.append(corpus.line())
        total += len(out[-1])
    return out
