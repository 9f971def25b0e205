"""The book: its parts and pages in reading order, as contents.ipynb lists them.

    python tools/book.py [--check] [--log FILE]

Writes into each page what it costs, and links to the pages before and after it; into the tables of
contents.ipynb minutes to read and seconds to run. The seconds stand in tools/seconds.json, which
`--log` renews from what `make test` printed. `--check` changes nothing and says which page is out
of date."""
import argparse
import json
import re
import sys
from os.path import relpath
from pathlib import Path

from pages import FOLD, NBS, ROOT, Page, n_lines, name_of, page_paths, text_of

SECONDS = ROOT/'tools/seconds.json'
ROW = re.compile(r'^\| \[([\w/]+)\]\([\w/]+\.ipynb\) \| (.*?) \|(.*)$', re.M)
TOP, END = 'book-top', 'book-end'
NO_ROW = {'index', 'contents'}


def path_of(name): return NBS/f'{name}.ipynb'


def cells(name): return json.loads(path_of(name).read_bytes())['cells']


def title_of(name):
    "The first heading of a page, or its name."
    for cell in cells(name):
        heading = re.search(r'^# (.+)', text_of(cell['source']), re.M)
        if cell['cell_type'] == 'markdown' and heading: return heading[1]
    return name


def parts():
    "[(title of the part, [(page, sentence)])], from the tables of contents.ipynb."
    found = []
    for cell in cells('contents'):
        text = text_of(cell['source'])
        heading, rows = re.match('## (.+)', text), ROW.findall(text)
        if heading and rows: found.append((heading[1], [row[:2] for row in rows]))
    return found


def minutes(page):
    "Minutes to read: 200 words or 25 lines of code in each."
    words = sum(len(cell.source.split()) for cell in page.lesson
                if cell.kind == 'markdown' and cell.id not in (TOP, END))
    return max(1, round(words/200 + sum(n_lines(cell.source) for cell in page.lesson
                                         if cell.kind == 'code')/25))


def link(name, page):
    "A link from `page` to the page `name`."
    return f"[{title_of(name)}]({relpath(name, Path(page).parent)}.ipynb)".replace('\\', '/')


def way(reading, pages, seconds):
    "The two lines of each page: {page: {id of the cell: its text}}."
    found = {}
    for i, (part, name) in enumerate(reading):
        cost = f'{minutes(pages[name])} min to read, {seconds.get(name, 1)} s to run'
        ends = [f'← {link(reading[i-1][1], name)}'] if i else []
        ends += [link('contents', name)]
        ends += [f'{link(reading[i+1][1], name)} →'] if i+1 < len(reading) else []
        found[name] = {TOP: f'*{part} · {cost}*', END: ' · '.join(ends)}
    return found


def is_solution(cell):
    return cell['metadata'].get(FOLD) and '# Solution' in text_of(cell['source'])


def with_way(nb, lines):
    "The notebook with its two lines, as JSON."
    kept = [cell for cell in nb['cells'] if cell.get('id') not in (TOP, END)]
    new = {key: dict(cell_type='markdown', id=key, metadata={}, source=[text])
           for key, text in lines.items()}
    first = next(i for i, cell in enumerate(kept)
                 if cell['cell_type'] == 'markdown' and re.match('# ', text_of(cell['source'])))
    hidden = '#| hide' in text_of(kept[-1]['source'])  # the cell that exports
    solutions = [i for i, cell in enumerate(kept) if is_solution(cell)]
    last = min([len(kept) - hidden, *solutions])  # a folded heading hides what stands below it
    nb['cells'] = [*kept[:first+1], new[TOP], *kept[first+1:last], new[END], *kept[last:]]
    return nb


def with_costs(nb, pages, seconds):
    "The contents with minutes and seconds in the rows of its tables."
    def row(found):
        name, text, _ = found.groups()
        link = f'[{name}]({name}.ipynb)'
        return f'| {link} | {text} | {minutes(pages[name])} | {seconds.get(name, 1)} |'
    for cell in nb['cells']:
        if cell['cell_type'] != 'markdown': continue
        cell['source'] = ROW.sub(row, text_of(cell['source'])).splitlines(keepends=True)
    return nb


def shown_at(pages):
    "What is wrong with the links of index.ipynb to places that show a name of the library."
    source = '\n'.join(text_of(cell['source']) for cell in cells('index'))
    for text, name, place in re.findall(r'\[([^\]]*)\]\(([\w/]+)\.ipynb(?:#([^)]+))?\)', source):
        if name not in pages:
            yield f'index.ipynb links to {name}.ipynb, which does not exist'
            continue
        prose = '\n'.join(cell.source for cell in pages[name].cells if cell.kind == 'markdown')
        places = {heading.replace(' ', '-') for heading in re.findall(r'^#+ (.+)', prose, re.M)}
        if not place: continue
        if place not in places: yield f'index.ipynb: {name}.ipynb has no heading {place}'
        code = '\n'.join(cell.source for cell in pages[name].code)
        for word in re.findall(r'`(\w+)`', text):
            if not re.search(rf'\b{word}\b', code): yield f'index.ipynb: {name}.ipynb lacks {word}'


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='change nothing')
    parser.add_argument('--log', type=Path, help='the output of make test')
    args = parser.parse_args()
    seconds = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
    if args.log:
        seconds |= {name: int(n) for name, n in re.findall(
            r'^passed  ([\w/]+)  (\d+)s', args.log.read_text(encoding='utf-8'), re.M)}
        SECONDS.write_text(json.dumps(seconds, indent=1, sort_keys=True) + '\n')
    pages = {name_of(path): Page(path) for path in page_paths()}
    reading = [(part, name) for part, rows in parts() for name, _ in rows]
    lines = way(reading, pages, seconds)
    missing = sorted(pages.keys() - lines.keys() - NO_ROW)
    problems = [f'nbs/{name}.ipynb has no row in contents.ipynb' for name in missing]
    problems += shown_at(pages)
    for name in [*lines, 'contents']:
        old = path_of(name).read_text(encoding='utf-8')
        nb = json.loads(old)
        nb = with_way(nb, lines[name]) if name in lines else with_costs(nb, pages, seconds)
        new = json.dumps(nb, ensure_ascii=False, indent=1, sort_keys=True) + '\n'
        if new == old: continue
        if args.check: problems.append(f'nbs/{name}.ipynb is out of date: run python tools/book.py')
        else: path_of(name).write_text(new, encoding='utf-8')
    for problem in problems: print(problem)
    return 1 if problems else 0


if __name__ == '__main__': sys.exit(main())
