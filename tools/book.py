"""The book: its parts and pages in reading order, as index.ipynb lists them."""
import json
import re
from pathlib import Path

from pages import Page, text_of

ROOT = Path(__file__).resolve().parent.parent
NBS = sorted(ROOT.glob('nbs/[!_.]*.ipynb'))
ROW = re.compile(r'^\|\s*\[([^\]]+)\]\((?:nbs/)?(\w+)\.ipynb\)\s*\|\s*(.*?)\s*\|', re.M)


def cells(stem): return json.loads((ROOT/f'nbs/{stem}.ipynb').read_bytes())['cells']


def parts():
    "[(title of the part, [(page, sentence)])], from the tables of index.ipynb."
    found = []
    for cell in cells('index'):
        if cell['cell_type'] != 'markdown': continue
        for piece in re.split(r'^(?=\*\*Part )', text_of(cell['source']), flags=re.M):
            heading, rows = re.match(r'\*\*(Part [^*]+)\*\*', piece), ROW.findall(piece)
            if not heading or not rows: continue
            found.append((heading[1], [(stem, text) for _, stem, text in rows]))
    return found


def title_of(stem):
    "The first heading of a page, or its name."
    for cell in cells(stem):
        heading = re.search(r'^# (.+)', text_of(cell['source']), re.M)
        if cell['cell_type'] == 'markdown' and heading: return heading[1]
    return stem


def module_of(path): return Page(path).module
