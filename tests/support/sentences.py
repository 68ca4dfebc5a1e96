"""200 texts of many lengths and languages, from a word to beyond what MiniLM takes: what embeddings are compared on."""

from __future__ import annotations

_BASE = """
The cat sits on the mat.
A dog barks at the postman every morning.
What is gravity?
Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.
Refund policy: goods may be returned within 30 days of purchase.
def add(a, b): return a + b
SELECT name FROM users WHERE age > 30 ORDER BY name;
The quick brown fox jumps over the lazy dog.
Interest rates rose by 0.25 percentage points in March 2023.
She sells sea-shells by the sea-shore; he doesn't.
E = mc² holds for bodies at rest.
Error 404: page not found
Yes.
no
42
"Quoted text", (parentheses), [brackets] and {braces}!
Visit https://example.org/path?query=1#part for more.
Der schnelle braune Fuchs springt über den faulen Hund.
Wie spät ist es in Zürich, wenn es in Tokio zwölf Uhr ist?
Donaudampfschifffahrtsgesellschaftskapitän
Le chat est assis sur le tapis, où il dort déjà.
Quelle heure est-il à Montréal ?
El perro ladra al cartero todas las mañanas.
¿Dónde está la biblioteca más cercana?
O gato dorme em cima da mesa da cozinha.
Il gatto è seduto sul tappeto rosso.
De kat zit op de mat en kijkt naar buiten.
Katten sitter på mattan och väntar på mat.
Katten ligger på sofaen hele dagen lang.
Kissa istuu matolla ja katselee ikkunasta ulos.
Kot siedzi na macie i patrzy przez okno.
Kočka sedí na rohožce a spí.
A macska a szőnyegen ül és alszik.
Pisica stă pe covor și doarme.
Kedi paspasın üzerinde oturuyor.
Η γάτα κάθεται στο χαλί.
Кошка сидит на коврике и смотрит в окно.
Кішка сидить на килимку.
Котката седи на килима.
החתול יושב על המחצלת.
القطة تجلس على السجادة.
گربه روی فرش نشسته است.
बिल्ली चटाई पर बैठी है।
বিড়ালটি মাদুরের উপর বসে আছে।
பூனை பாயில் அமர்ந்திருக்கிறது.
แมวนั่งอยู่บนเสื่อ
Con mèo ngồi trên tấm thảm.
Kucing itu duduk di atas tikar.
猫坐在垫子上看着窗外。
貓坐在墊子上。
猫はマットの上に座っています。
고양이가 매트 위에 앉아 있다.
Paka ameketi kwenye mkeka.
Kotur á mottu, þetta er íslenska.
Emoji: 😀 🚀 ❤️ and a flag 🇨🇭.
naïve café façade coöperate résumé
ﬁ ligature, full-width ＡＢＣ１２３ and ½ fractions
tabs\tand\nnewlines\r\nand   many    blanks
supercalifragilisticexpialidocious antidisestablishmentarianism
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
The treaty was signed in 1648 and ended a war that had lasted for thirty years and cost millions of lives.
To boil an egg, put it into cold water, bring the water to the boil, and wait for six minutes.
Our support team answers on working days between nine and five; urgent cases are taken at any time.
"""


def sentences() -> list[str]:
    """Single texts, then some that follow one another, ever more of them."""
    base = [line.replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r") for line in _BASE.strip().splitlines()]
    out, at, count = list(base), 0, 2
    while len(out) < 200:
        out.append(" ".join(base[(at + 7 * i) % len(base)] for i in range(count)))
        at, count = at + 11, 2 + (len(out) * 5) % 23
    return out
