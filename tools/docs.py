"""Build the book as HTML, without a network: `make docs`.

    python tools/docs.py [--check]

Each notebook becomes a page with its committed outputs, each module a page of its API; names in the
text link to it. Ends with an error if a link leads nowhere or a page would load something from
another host. The site is _docs/site: its search works from the disk, llms.txt lies beside it."""
import argparse
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from book import parts, title_of
from links import broken_links
from nbconvert import MarkdownExporter
from nbdev.config import get_config
from nbdev.showdoc import BasicMarkdownRenderer, show_doc
from pages import FOLD, ROOT, Page, name_of, page_paths

DOCS = ROOT/'_docs'
PAGES, SITE = DOCS/'pages', DOCS/'site'
SHIM = 'https://unpkg.com/iframe-worker/shim'  # mkdocs-material names it in every offline page
WIDE = '''.md-grid { max-width: 84rem }
.md-typeset pre > code { font-size: .76em }  /* 100 columns fit beside the menus */
.md-typeset details { font-size: inherit }
'''
NAME = re.compile(r'(?<!\[)(?<!`)`([\w@][\w.@]*(?:\(\))?)`(?!\])')  # in backticks, not a link yet
FENCE = re.compile(r'(^```.*?^```[^\n]*$)', re.M | re.S)


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
    nb.metadata['language_info'] = {'name': 'python'}  # dropped by nbdev_clean; fences need it
    for cell in nb.cells:
        if cell.cell_type == 'code':
            cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M)
    return nb


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


def anchor(name): return name.split('(')[0].split('.')[0].lower()


def write_page(path, names):
    "The page of the notebook at `path`, its pictures beside it."
    nb, page = folded(readable(nbformat.read(path, as_version=4))), PAGES/f'{name_of(path)}.md'
    for cell in nb.cells:
        if cell.cell_type == 'markdown':
            cell.source = linked(cell.source, names, up_from(name_of(path)))
    text, resources = MarkdownExporter().from_notebook_node(
        nb, {'output_files_dir': f'{path.stem}_files'})
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding='utf-8')
    for name, data in resources['outputs'].items():
        (page.parent/name).parent.mkdir(exist_ok=True)
        (page.parent/name).write_bytes(data)


# --- a module as a page of the API ----------------------------------------------------------------

def entry(thing, name, level):
    "Signature, parameters and sentence of one name."
    text = show_doc(thing, renderer=BasicMarkdownRenderer, name=name)._repr_markdown_()
    if inspect.isclass(thing): text = text.replace('def ', 'class ', 1)
    text = re.sub(r'^-+\n|\[source\]\([^)]*\)\{[^}]*\}|^#+ .*\n', '', text, flags=re.M)
    return f'{"#"*level} {name} {{#{name.lower()}}}\n\n{text.strip()}\n'


def methods(cls):
    "The public methods that `cls` itself documents."
    return [(name, thing) for name, thing in vars(cls).items()
            if callable(thing) and thing.__doc__ and not (name[0] == '_' or inspect.isclass(thing))]


def write_api(module, page):
    "The page of the API of one module."
    loaded = importlib.import_module(f'nntrain.{module}')
    text = [f'# nntrain.{module}\n\nBuilt and explained in [{title_of(page)}](../{page}.md).\n']
    for name in loaded.__all__:
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
    book = [{part: [{title_of(stem): f'{stem}.md'} for stem, _ in rows]} for part, rows in parts()]
    return dict(
        site_name='nntrain', site_description=config.description, site_url='',
        docs_dir=str(PAGES), site_dir=str(SITE), use_directory_urls=False,
        extra_css=['wide.css'],
        theme=dict(name='material', font=False, palette=palette,
                   features=['navigation.footer', 'navigation.top', 'content.code.copy']),
        plugins=['search', 'offline'],
        markdown_extensions=['tables', 'admonition', 'attr_list', 'md_in_html', 'pymdownx.details',
                             'pymdownx.superfences', 'pymdownx.highlight'],
        nav=[{'nntrain': 'index.md'}, {'Contents': 'contents.md'}, *book,
             {'API': [{f'nntrain.{module}': f'api/{module}.md'} for module in api]}])


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


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='only look at the links of _docs/site')
    if not parser.parse_args().check: build()
    n, problems = broken_links(SITE)
    for problem in problems: print(problem)
    print(f"{SITE.relative_to(ROOT)}: {len(list(SITE.rglob('*.html')))} pages, {n} links, "
          f'{len(problems)} broken')
    return 1 if problems else 0


if __name__ == '__main__': sys.exit(main())
