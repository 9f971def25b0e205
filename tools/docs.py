"""Build the book as HTML, without a network: `make docs`.

    python tools/docs.py [--check]

Each notebook becomes a page with its committed outputs, each module a page of its API; names in the
text link to it. Imports and checks are folded, so that what is left is the lesson. Ends with an
error if a link leads nowhere or a page would load something from another host. The site is
_docs/site: its search works from the disk, llms.txt lies beside it."""
import argparse
import ast
import base64
import html
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from book import parts, title_of
from latex2mathml.converter import convert
from links import broken_links
from nbdev.config import get_config
from nbdev.showdoc import BasicMarkdownRenderer, show_doc
from nntrain import all as everything
from nntrain.learner import METHODS
from pages import FOLD, ROOT, Page, name_of, page_paths

DOCS = ROOT/'_docs'
RECIPES = 'guides/05_recipes'
PAGES, SITE = DOCS/'pages', DOCS/'site'
SHIM = 'https://unpkg.com/iframe-worker/shim'  # mkdocs-material names it in every offline page
WIDE = '''.md-grid { max-width: 84rem }
.md-typeset pre > code { font-size: .76em }  /* 100 columns fit beside the menus */
.md-typeset details { font-size: inherit }
.md-typeset details.quiet { border: 0; box-shadow: none; margin: -.6em 0 1em; font-size: .8em }
.md-typeset details.quiet > summary { background: none; opacity: .75; padding: .2em 2.4em .2em 0;
  width: fit-content; white-space: nowrap }
.md-typeset details.quiet > summary::before { display: none }
.md-typeset table:not([class]) :is(th, td) { padding: .5em .7em; min-width: 0 }
.md-typeset table:not([class]) code { white-space: nowrap }
.md-typeset .output { border-left: .15rem solid var(--md-accent-fg-color); margin: -.6em 0 1.2em;
  padding-left: .6rem; overflow-x: auto }
.md-typeset .output pre { margin: 0; padding: .5em .8em; font-size: .76em; line-height: 1.4 }
.md-typeset .output img { background: #fff; border-radius: .2rem }  /* dark text on it */
.md-typeset .output table { font-size: .64rem; border: 0; border-collapse: collapse }
.md-typeset .output :is(th, td) { padding: .2em .7em; border: 0; text-align: right;
  border-bottom: .05rem solid var(--md-default-fg-color--lightest) }
.md-typeset .notebook { float: right; font-size: .7rem }
'''
CHECKS = 'test_eq', 'test_close', 'test_ne', 'test_fail', 'expect_fail'
NAME = re.compile(r'(?<!\[)(?<!`)`([\w@][\w.@]*(?:\(\))?)`(?!\])')  # in backticks, not a link yet
FENCE = re.compile(r'(^```.*?^```[^\n]*$)', re.M | re.S)
CODE = re.compile(r'(^```.*?^```[^\n]*$|`[^`]*`)', re.M | re.S)
FORMULA = re.compile(r'(?<![\\$\w])(\$\$?)(?![\s$])([^$]+?)(?<![\s\\])\1(?![\w$])')


def modules():
    "The pages that make a module, by module, in reading order."
    paths = {name_of(path): path for path in page_paths()}
    pages = {name: Page(paths[name]).module for _, rows in parts() for name, _ in rows}
    return {module: name for name, module in pages.items() if module}


def public_names():
    "The module of each public name."
    return {name: module for module in modules()
            for name in importlib.import_module(f'nntrain.{module}').__all__}


def up_from(name): return '../'*name.count('/')


# --- a notebook as a page -------------------------------------------------------------------------

def readable(nb):
    "The notebook without hidden cells and directives; its code stays, it is the lesson."
    nb.cells = [cell for cell in nb.cells if not (
        cell.cell_type == 'raw' or re.search(r'^#\|\s*(hide|default_exp)\b', cell.source, re.M))]
    for cell in nb.cells:
        if cell.cell_type == 'code':
            cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M)
    return nb


def kind_of(node):
    "'imports', 'checks' or 'code' of a statement."
    if isinstance(node, (ast.Import, ast.ImportFrom)): return 'imports'
    call = node.items[0].context_expr if isinstance(node, ast.With) else getattr(node, 'value', 0)
    name = getattr(getattr(call, 'func', None), 'id', '') if isinstance(call, ast.Call) else ''
    return 'checks' if isinstance(node, ast.Assert) or name in CHECKS else 'code'


def split_code(source):
    "(imports, code, checks): statements of a cell by kind, each with the comments above it."
    try: body = ast.parse(source).body
    except SyntaxError: return '', source, ''
    lines, parts, start = source.split('\n'), dict(imports=[], code=[], checks=[]), 0
    for i, node in enumerate(body):
        shared = i+1 < len(body) and body[i+1].lineno == node.end_lineno
        if shared: continue     # two statements in a line stay together
        kinds = {kind_of(n) for n in body[:i+1] if n.end_lineno > start}
        kind = kinds.pop() if len(kinds) == 1 else 'code'
        parts[kind] += lines[start:node.end_lineno]
        start = node.end_lineno
    parts['code'] += lines[start:]
    if len(parts['imports']) < 3:   # a line or two are no wall
        parts['code'], parts['imports'] = parts['imports'] + parts['code'], []
    return tuple('\n'.join(parts[kind]).strip('\n') for kind in ('imports', 'code', 'checks'))


def fence(code): return f'```python\n{code}\n```\n'


def quiet(title, code):
    "A block that opens at a click."
    return (f'<details class="quiet" markdown="1"><summary>{title}</summary>\n\n{fence(code)}\n'
            '</details>\n') if code else ''


def output_text(output, place, files):
    "An output as HTML; a picture becomes a file."
    data = output.get('data', {})
    if output.output_type == 'stream': text = f'<pre>{html.escape(output.text)}</pre>'
    elif output.output_type == 'error': return ''
    elif 'image/png' in data:
        files[place] = base64.b64decode(data['image/png'])
        size = output.get('metadata', {}).get('image/png', {})
        width = f' width="{size["width"]}"' if 'width' in size else ''
        text = f'<img src="{place}" alt="plot"{width}>'
    elif 'image/svg+xml' in data: text = ''.join(data['image/svg+xml'])
    elif 'text/html' in data: text = ''.join(data['text/html'])
    else: text = f"<pre>{html.escape(''.join(data.get('text/plain', '')))}</pre>"
    return f'<div class="output">{text}</div>\n'


def cell_text(cell, stem, i, files):
    "A cell as Markdown: what it imports, its code, what it shows, what it checks."
    if cell.cell_type != 'code': return cell.source + '\n'
    imports, code, checks = split_code(cell.source)
    shown = [output_text(output, f'{stem}_files/{i}_{j}.png', files)
             for j, output in enumerate(cell.outputs)]
    return '\n'.join([quiet('Imports', imports), fence(code) if code else '', *shown,
                      quiet('Checks', checks)])


def folded(nb):
    "The notebook with what stands below each folded heading in a block that opens at a click."
    new, end = nbformat.v4.new_markdown_cell, ''
    cells = []
    for cell in nb.cells:
        if cell.metadata.get(FOLD):
            title = cell.source.lstrip('# ')
            cell = new(f'{end}<details markdown="1"><summary>{title}</summary>\n')
            end = '</details>\n\n'
        cells.append(cell)
    nb.cells = [*cells, new(end)]
    return nb


def linked(text, names, up=''):
    "Markdown with its links made relative, and each name of the library a link to its API."
    def link(found):
        name = found[1].removeprefix('@')
        known = names.get(name.split('(')[0].split('.')[0])
        return f'[`{found[1]}`]({up}api/{known}.md#{anchor(name)})' if known else found[0]
    def page_link(found):
        page, place = found.groups()
        return f"]({page and page.replace('.ipynb', '.md') or ''}{(place or '').lower()})"
    def prose(part):
        part = re.sub(r'\]\(([\w./]+\.ipynb)?(#[^)]*)?\)', page_link, part)
        return '\n'.join(line if line.startswith('#') else NAME.sub(link, line)
                         for line in part.split('\n'))
    return ''.join(part if part.startswith('```') else prose(part) for part in FENCE.split(text))


def with_formulas(text):
    "Markdown with its `$formulas$` as MathML, which browsers draw without a script."
    def drawn(found):
        return convert(found[2], display='block' if found[1] == '$$' else 'inline')
    parts = CODE.split(text)
    parts[::2] = [FORMULA.sub(drawn, part) for part in parts[::2]]
    return ''.join(parts)


def anchor(name): return name.split('(')[0].split('.')[0].lower()


SEARCHES = {'install': 'index.html', 'gpu': 'inspect/11_device_check.html',
            'save model': 'checkpoint/04_weights.html', 'load model': 'checkpoint/04_weights.html'}


def boosted(by):
    "What tells the search by how much a page counts more than others; it begins the page."
    return f'---\nsearch:\n  boost: {by}\n---\n'


def write_page(path, names):
    "The page of the notebook at `path`, its pictures beside it."
    nb, page = folded(readable(nbformat.read(path, as_version=4))), PAGES/f'{name_of(path)}.md'
    for cell in nb.cells:
        if cell.cell_type == 'markdown':
            cell.source = with_formulas(linked(cell.source, names, up_from(name_of(path))))
    files, stem = {}, path.stem
    cells = [cell_text(cell, stem, i, files) for i, cell in enumerate(nb.cells)]
    link = f'<a class="notebook" href="{path.name}" download>notebook</a>\n'
    page.parent.mkdir(parents=True, exist_ok=True)
    asked_for = f'{name_of(path)}.html' in SEARCHES.values()
    start = boosted(4 if asked_for else 1)
    page.write_text(start + '\n'.join([link, *cells]), encoding='utf-8')
    shutil.copy(path, page.parent)
    for name, data in files.items():
        (page.parent/name).parent.mkdir(exist_ok=True)
        (page.parent/name).write_bytes(data)


# --- a module as a page of the API ----------------------------------------------------------------

def entry(thing, name, level):
    "Signature, parameters and sentence of one name."
    text = show_doc(thing, renderer=BasicMarkdownRenderer, name=name)._repr_markdown_()
    if inspect.isclass(thing): text = text.replace('def ', 'class ', 1)
    text = re.sub(r'\b(?:nntrain|collections\.abc|torch|typing)\.(?:\w+\.)*(?=[A-Z])', '', text)
    text = re.sub(r'^-+\n|\[source\]\([^)]*\)\{[^}]*\}|^#+ .*\n', '', text, flags=re.M)
    return f'{"#"*level} {name} {{#{name.lower()}}}\n\n{text.strip()}\n'


def methods(cls):
    "The public methods that `cls` itself documents, those that other pages add among them."
    found = {name: getattr(cls, name) for name in vars(cls) if name[0] != '_'}
    added = lambda name: (name != 'fit', name not in METHODS)  # of the learner: the verbs first
    found = dict(sorted(found.items(), key=lambda item: added(item[0])))
    return [(name, thing) for name, thing in found.items() if callable(thing)
            and getattr(thing, '__doc__', None) and not inspect.isclass(thing)]


def write_api(module, page):
    "The page of the API of one module."
    loaded = importlib.import_module(f'nntrain.{module}')
    link = f'[{title_of(page)}](../{page}.md)'
    text = [f'{boosted(0.5)}# nntrain.{module}\n\nBuilt and explained in {link}.\n']
    classes = [name for name in loaded.__all__ if inspect.isclass(getattr(loaded, name))]
    classes.sort(key=lambda name: name not in vars(everything))     # those that users type first
    for name in [*classes, *(name for name in loaded.__all__ if name not in classes)]:
        thing = getattr(loaded, name)
        if not (inspect.isclass(thing) or inspect.isroutine(thing)):
            text.append(f'## {name} {{#{name.lower()}}}\n\n`{name} = {str(thing)[:80]}`\n')
            continue
        text.append(entry(thing, name, 2))
        if inspect.isclass(thing):
            text += [entry(method, f'{name}.{key}', 3) for key, method in methods(thing)]
    (PAGES/'api'/f'{module}.md').write_text('\n'.join(text), encoding='utf-8')


# --- the site -------------------------------------------------------------------------------------

def settings(config, api):
    "What mkdocs is told: nothing from other hosts (so no repo_url), light and dark, the parts."
    palette = [dict(media=f'(prefers-color-scheme: {scheme})', scheme=name, toggle=dict(
        icon=f'material/{icon}', name=f'To {other}')) for scheme, name, icon, other in (
            ('light', 'default', 'weather-night', 'dark'),
            ('dark', 'slate', 'weather-sunny', 'light'))]
    named = lambda stem: {title_of(stem): f'{stem}.md'}
    first = ['guides/01_from_fastai', 'guides/02_from_lightning', 'guides/03_from_keras']
    book = [{part: [named(stem) for stem, _ in rows if stem not in (*first, RECIPES)]}
            for part, rows in parts()]
    return dict(
        site_name='nntrain', site_description=config.description, site_url='',
        docs_dir=str(PAGES), site_dir=str(SITE), use_directory_urls=False,
        extra_css=['wide.css'],
        theme=dict(name='material', font=False, palette=palette, logo='images/logo.svg',
                   favicon='images/logo.svg',
                   features=['navigation.footer', 'navigation.top', 'content.code.copy']),
        plugins=['search', 'offline'],
        markdown_extensions=['tables', 'admonition', 'attr_list', 'md_in_html', 'pymdownx.details',
                             'pymdownx.superfences', 'pymdownx.highlight'],
        nav=[{'Quickstart': 'index.md'}, named(RECIPES), {'Coming from': [*map(named, first)]},
             {'API': [{f'nntrain.{module}': f'api/{module}.md'} for module in api]},
             {'Book': [{'Contents': 'contents.md'}, *book]}])


def own_worker():
    "Have the pages load the script that makes the search work from the disk from the site itself."
    shutil.copy(ROOT/'tools/worker.js', SITE/'assets')
    for path in SITE.rglob('*.html'):
        up = '../'*(len(path.relative_to(SITE).parts)-1)
        text = path.read_text(encoding='utf-8')
        path.write_text(text.replace(SHIM, f'{up}assets/worker.js'), encoding='utf-8')


def write_llms(api):
    "The book's contents in the form of https://llmstxt.org, for readers that are programs."
    lines = ['# nntrain', '', f'> {get_config().description}', '']
    for part, rows in parts():
        lines += [f'## {part}', '', *[f'- [{title_of(stem)}]({stem}.html): {text}'
                                      for stem, text in rows], '']
    lines += ['## API', '']
    for module in api:
        loaded = importlib.import_module(f'nntrain.{module}')
        lines += [f"- [nntrain.{module}](api/{module}.html): {', '.join(loaded.__all__)}"]
    (SITE/'llms.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')


def build():
    "Write the pages and have mkdocs make the site of them."
    shutil.rmtree(DOCS, ignore_errors=True)
    (PAGES/'api').mkdir(parents=True)
    shutil.copytree(ROOT/'nbs/images', PAGES/'images')
    names, api = public_names(), modules()
    for path in page_paths(): write_page(path, names)
    for module, page in api.items(): write_api(module, page)
    (PAGES/'wide.css').write_text(WIDE)
    (DOCS/'mkdocs.yml').write_text(yaml.safe_dump(settings(get_config(), api), sort_keys=False))
    command = [sys.executable, '-m', 'mkdocs', 'build', '--quiet', '-f', str(DOCS/'mkdocs.yml')]
    subprocess.run(command, check=True, env=dict(os.environ, NO_MKDOCS_2_WARNING='1'))
    own_worker()
    write_llms(api)


def lost_pages():
    "Searches of newcomers to which their page has no heading: those stand first in the results."
    known = json.loads((SITE/'search/search_index.json').read_text(encoding='utf-8'))['docs']
    for words, page in SEARCHES.items():
        titles = [part['title'].lower() for part in known if part['location'].split('#')[0] == page]
        if not any(all(word in title for word in words.split()) for title in titles):
            yield f'a search for {words!r} misses {page}: none of its headings has these words'


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='only look at the links of _docs/site')
    if not parser.parse_args().check: build()
    n, problems = broken_links(SITE)
    problems += lost_pages()
    for problem in problems: print(problem)
    print(f"{SITE.relative_to(ROOT)}: {len(list(SITE.rglob('*.html')))} pages, {n} links, "
          f'{len(problems)} broken')
    return 1 if problems else 0


if __name__ == '__main__': sys.exit(main())
