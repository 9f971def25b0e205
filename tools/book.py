"""The book: its parts and pages in reading order, as index.ipynb lists them, and the way through.

    python tools/book.py [--check] [--log FILE]

Writes into each page what it needs and costs, and links to the pages before and after it; into
the tables of index.ipynb minutes to read and seconds to run. The seconds stand in
tools/seconds.json, which `--log` renews from what `make test` printed. `--check` changes nothing
and says which page is out of date."""
import argparse
import json
import re
import sys
from pathlib import Path

from pages import FOLD, Page, n_lines, own_imports, text_of

ROOT = Path(__file__).resolve().parent.parent
NBS = sorted(ROOT.glob('nbs/[!_.]*.ipynb'))
SECONDS = ROOT/'tools/seconds.json'
ROW = re.compile(r'^\| \[(\w+)\]\(\w+\.ipynb\) \| (.*?) \|(.*)$', re.M)
TOP, END = 'book-top', 'book-end'


def path_of(stem): return ROOT/f'nbs/{stem}.ipynb'


def cells(stem): return json.loads(path_of(stem).read_bytes())['cells']


def module_of(path): return Page(path).module


def title_of(stem):
    "The first heading of a page, or its name."
    for cell in cells(stem):
        heading = re.search(r'^# (.+)', text_of(cell['source']), re.M)
        if cell['cell_type'] == 'markdown' and heading: return heading[1]
    return stem


def parts():
    "[(title of the part, [(page, sentence)])], from the tables of index.ipynb."
    found = []
    for cell in cells('index'):
        if cell['cell_type'] != 'markdown': continue
        for piece in re.split(r'^(?=\*\*Part )', text_of(cell['source']), flags=re.M):
            heading, rows = re.match(r'\*\*(Part [^*]+)\*\*', piece), ROW.findall(piece)
            if not heading or not rows: continue
            found.append((heading[1], [(stem, text) for stem, text, _ in rows]))
    return found


def minutes(page):
    "Minutes to read: 200 words or 25 lines of code in each."
    words = sum(len(cell.source.split()) for cell in page.lesson
                if cell.kind == 'markdown' and cell.id not in (TOP, END))
    return max(1, round(words/200 + sum(n_lines(cell.source) for cell in page.lesson
                                         if cell.kind == 'code')/25))


def link(stem): return f'[{title_of(stem)}]({stem}.ipynb)'


def way(reading, pages, seconds):
    "The two lines of each page: {page: {id of the cell: its text}}."
    found, stem_of = {}, {page.module: stem for stem, page in pages.items() if page.module}
    for i, (part, stem) in enumerate(reading):
        needs = set().union(*(own_imports(cell.tree) for cell in pages[stem].exported))
        needs = [link(other) for other in sorted(stem_of[name] for name in needs & stem_of.keys())]
        needs = ', '.join(needs) or 'none of the others'
        cost = f'{minutes(pages[stem])} min to read, {seconds.get(stem, 1)} s to run'
        ends = [f'← {link(reading[i-1][1])}'] if i else []
        ends += ['[Contents](index.ipynb)']
        ends += [f'{link(reading[i+1][1])} →'] if i+1 < len(reading) else []
        found[stem] = {TOP: f'*{part} · {cost}* · Needs: {needs}', END: ' · '.join(ends)}
    return found


def with_way(nb, lines):
    "The notebook with its two lines, as JSON."
    kept = [cell for cell in nb['cells'] if cell.get('id') not in (TOP, END)]
    new = {key: dict(cell_type='markdown', id=key, metadata={}, source=[text])
           for key, text in lines.items()}
    first = next(i for i, cell in enumerate(kept)
                 if cell['cell_type'] == 'markdown' and re.match('# ', text_of(cell['source'])))
    hidden = '#| hide' in text_of(kept[-1]['source'])  # the cell that exports
    folded = [i for i, cell in enumerate(kept) if cell['metadata'].get(FOLD)]
    last = min([len(kept) - hidden, *folded])  # a folded heading hides what stands below it
    nb['cells'] = [*kept[:first+1], new[TOP], *kept[first+1:last], new[END], *kept[last:]]
    return nb


def with_costs(nb, pages, seconds):
    "The index with minutes and seconds in the rows of its tables."
    def row(found):
        stem, text, _ = found.groups()
        link = f'[{stem}]({stem}.ipynb)'
        return f'| {link} | {text} | {minutes(pages[stem])} | {seconds.get(stem, 1)} |'
    for cell in nb['cells']:
        if cell['cell_type'] != 'markdown': continue
        cell['source'] = ROW.sub(row, text_of(cell['source'])).splitlines(keepends=True)
    return nb


def shown_at(pages):
    "What is wrong with the links of index.ipynb to places that show a name of the library."
    source = '\n'.join(text_of(cell['source']) for cell in cells('index'))
    for text, stem, place in re.findall(r'\[([^\]]*)\]\((\w+)\.ipynb(?:#([^)]+))?\)', source):
        if stem not in pages:
            yield f'index.ipynb links to {stem}.ipynb, which does not exist'
            continue
        prose = '\n'.join(cell.source for cell in pages[stem].cells if cell.kind == 'markdown')
        places = {heading.replace(' ', '-') for heading in re.findall(r'^#+ (.+)', prose, re.M)}
        if not place: continue
        if place not in places: yield f'index.ipynb: {stem}.ipynb has no heading {place}'
        code = '\n'.join(cell.source for cell in pages[stem].code)
        for name in re.findall(r'`(\w+)`', text):
            if not re.search(rf'\b{name}\b', code): yield f'index.ipynb: {stem}.ipynb lacks {name}'


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='change nothing')
    parser.add_argument('--log', type=Path, help='the output of make test')
    args = parser.parse_args()
    seconds = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
    if args.log:
        seconds |= {stem: int(n) for stem, n in re.findall(
            r'^passed  (\w+)\.ipynb  (\d+)s', args.log.read_text(encoding='utf-8'), re.M)}
        SECONDS.write_text(json.dumps(seconds, indent=1, sort_keys=True) + '\n')
    pages = {path.stem: Page(path) for path in NBS}
    reading = [(part, stem) for part, rows in parts() for stem, _ in rows]
    lines = way(reading, pages, seconds)
    missing = sorted(pages.keys() - lines.keys() - {'index'})
    problems = [f'nbs/{stem}.ipynb has no row in index.ipynb' for stem in missing]
    problems += shown_at(pages)
    for stem in [*lines, 'index']:
        old = path_of(stem).read_text(encoding='utf-8')
        nb = json.loads(old)
        nb = with_way(nb, lines[stem]) if stem in lines else with_costs(nb, pages, seconds)
        new = json.dumps(nb, ensure_ascii=False, indent=1, sort_keys=True) + '\n'
        if new == old: continue
        if args.check: problems.append(f'nbs/{stem}.ipynb is out of date: run python tools/book.py')
        else: path_of(stem).write_text(new, encoding='utf-8')
    for problem in problems: print(problem)
    return 1 if problems else 0


if __name__ == '__main__': sys.exit(main())
