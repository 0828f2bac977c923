"""Answer a question from a folder of text: a graph that reads, indexes (BM25) and ranks.

``mai run docs/examples/answer.py:ask "how many branches at once?" --folder docs`` asks the pages of a project;
``mai run docs/examples/answer.py:ask_library "serialize an object to text" --packages json`` asks the docstrings of the
standard library. ``mai plan docs/examples/answer.py:ask --format mermaid`` draws the first one.
"""

import ast
import math
import re
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from mai import Module, graph, module

COMMON = set(
    "a an and are as at be by can do for from how i if in is it not of on or that the this to what with".split()
)


class Passage(BaseModel):
    place: str
    text: str


class Hit(BaseModel):
    place: str
    score: float
    text: str


class Answer(BaseModel):
    question: str
    searched: int
    hits: list[Hit]


@dataclass
class Index:
    """What BM25 needs: how often each word stands in which passage, and how long the passages are."""

    passages: list[Passage]
    found: dict[str, dict[int, int]]
    lengths: list[int]


def words_of(text: str) -> list[str]:
    words = re.findall(r"[a-z]+", text.lower())
    return [word.removesuffix("s") for word in words if word not in COMMON]


class ReadPages(Module):
    """The paragraphs of all text files below a folder; plain functions run in a worker thread."""

    suffixes: tuple[str, ...] = (".rst", ".txt", ".md")

    def forward(self, folder: Path) -> list[Passage]:
        found: list[Passage] = []
        for path in sorted(folder.rglob("*")):
            if path.suffix in self.suffixes and path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace")
                paragraphs = re.split(r"\n\s*\n", text)
                place = path.relative_to(folder).as_posix()
                found += [Passage(place=place, text=" ".join(part.split())) for part in paragraphs if part.strip()]
        return found


class ReadDocstrings(Module):
    """The docstrings of packages of the standard library, read from the source; nothing is imported."""

    def forward(self, packages: list[str]) -> list[Passage]:
        library = Path(sysconfig.get_paths()["stdlib"])
        found: list[Passage] = []
        for name in packages:
            paths = [library / f"{name}.py", *sorted((library / name).glob("*.py"))]
            for path in (path for path in paths if path.is_file()):
                found += self.docstrings(path, path.relative_to(library).as_posix())
        return found

    def docstrings(self, path: Path, place: str) -> Iterator[Passage]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield Passage(place=f"{place}:{getattr(node, 'name', '')}", text=" ".join(text.split()))


@module
def build_index(passages: list[Passage]) -> Index:
    found: dict[str, dict[int, int]] = defaultdict(dict)
    lengths: list[int] = []
    for i, passage in enumerate(passages):
        words = words_of(passage.text)
        lengths.append(len(words))
        for word, count in Counter(words).items():
            found[word][i] = count
    return Index(passages, found, lengths)


@module(inline=True)
def keywords(question: str) -> list[str]:
    return list(dict.fromkeys(words_of(question)))


@module
def rank(index: Index, words: list[str], k: int = 3) -> list[Hit]:
    """Okapi BM25 with k1 = 1.5 and b = 0.75 (Robertson and Zaragoza, 2009)."""
    n, mean = len(index.passages), sum(index.lengths) / max(1, len(index.lengths))
    scores: Counter[int] = Counter()
    for word in words:
        places = index.found.get(word, {})
        weight = math.log(1 + (n - len(places) + 0.5) / (len(places) + 0.5))
        for i, count in places.items():
            scores[i] += weight * count * 2.5 / (count + 1.5 * (0.25 + 0.75 * index.lengths[i] / mean))  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    best = scores.most_common(k)
    return [
        Hit(place=p.place, score=round(score, 2), text=p.text) for p, score in ((index.passages[i], s) for i, s in best)
    ]


@graph
async def search(question: str, passages: list[Passage], k: int = 3) -> list[Hit]:
    return await rank(await build_index(passages), await keywords(question), k)


read_pages, read_docstrings, count, make_answer = ReadPages(), ReadDocstrings(), module(len), module(Answer)


@graph(timeout=60.0)
async def ask(question: str, folder: Path = Path("docs"), k: int = 3) -> Answer:
    passages = await read_pages(folder)
    hits = await search(question, passages, k)  # a graph inside a graph stays one, with a name
    return await make_answer(question=question, searched=await count(passages), hits=hits)


@graph(timeout=60.0)
async def ask_library(question: str, packages: list[str], k: int = 3) -> Answer:
    passages = await read_docstrings(packages)
    hits = await search(question, passages, k)
    return await make_answer(question=question, searched=await count(passages), hits=hits)


if __name__ == "__main__":
    answer = ask.run("how many branches may run at once", Path(__file__).parents[1])
    for hit in answer.hits:
        print(f"{hit.score:6.2f}  {hit.place}: {hit.text[:80]}")
    print(ask.draw())
