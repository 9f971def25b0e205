"""Read the book as a person would: pages run in JupyterLab and pages of `make docs`, in a browser.

    python tools/browser.py [--all] [NN_page ...]

Each page is run from top to bottom in JupyterLab, shown light and dark; those of _docs/site are
opened from the disk in both, and the search is asked. Reported are an error in a cell, a script
that fails, a request to another host, and what can hardly be read: see legible.js. Pictures to
look at: runs/browser. Needs Chromium."""
import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from docs import SEARCHES
from pages import ROOT, name_of, page_paths, text_of
from playwright.sync_api import sync_playwright

SITE, PICTURES = ROOT/'_docs/site', ROOT/'runs/browser'
# Bars and a live plot; SVG and tables; pictures
PAGES = '08_progress', 'inspect/01_loop', 'inspect/05_hooks'
QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync']
# Errors of the notebook on show, run from top to bottom
RUN = """async () => {
    const app = window.jupyterapp
    await app.commands.execute('notebook:run-all-cells')
    const cells = app.shell.currentWidget.content.model.sharedModel.toJSON().cells
    return cells.flatMap(cell => (cell.outputs || []).filter(o => o.output_type == 'error')
        .map(o => [`${cell.id}: ${o.ename}: ${o.evalue}`, ...o.traceback.slice(-3)].join('\\n')))
}"""
LEGIBLE = (ROOT/'tools/legible.js').read_text(encoding='utf-8')
FIRST = """() => [...document.querySelectorAll('.md-search-result__item')].slice(0, 2)
    .map(item => item.querySelector('a').getAttribute('href'))"""
THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"


def copy_project(folder):
    "What a reader has: the pages, the library, the settings that exporting needs."
    for name in ('nbs', 'nntrain'): shutil.copytree(ROOT/name, Path(folder)/name)
    shutil.copy(ROOT/'settings.ini', folder)
    for path in Path(folder).glob('nbs/**/*.ipynb'):  # without the cells that take minutes
        nb = json.loads(path.read_text(encoding='utf-8'))
        nb['cells'] = [cell for cell in nb['cells'] if '#| slow' not in text_of(cell['source'])]
        path.write_text(json.dumps(nb), encoding='utf-8')
    settings = {
        'page_config': {'disabledExtensions': {  # else it asks about news
            '@jupyterlab/apputils-extension:announcements': True}},
        'default_setting_overrides': {'@jupyterlab/notebook-extension:tracker': {
            'windowingMode': 'none'}}}  # else cells out of sight are not in the page
    (Path(folder)/'.jupyter/labconfig').mkdir(parents=True)
    for name, value in settings.items():
        (Path(folder)/f'.jupyter/labconfig/{name}.json').write_text(json.dumps(value))


@contextmanager
def jupyterlab(folder):
    "A JupyterLab that serves `folder`; its address."
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    options = [f'--ServerApp.{key}={value}' for key, value in dict(
        port=port, token='', password='', root_dir=folder, open_browser=False, allow_root=True,
        disable_check_xsrf=True).items()]
    command = [sys.executable, '-m', 'jupyterlab', '--expose-app-in-browser', *options]
    env = dict(os.environ, PYTHONPATH=folder, JUPYTER_CONFIG_DIR=f'{folder}/.jupyter',
               HF_HUB_OFFLINE='1')
    server = subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    url = f'http://127.0.0.1:{port}'
    try:
        for _ in range(120):
            if server.poll() is not None: sys.exit('JupyterLab did not start')
            try: urllib.request.urlopen(f'{url}/api').read(); break
            except OSError: time.sleep(.5)
        yield url
    finally:
        server.terminate()
        server.wait()


def watched(context, problems):
    "A new tab that reports failing scripts and requests to other hosts."
    tab = context.new_page()
    tab.on('pageerror', lambda error: problems.append(f'{tab.url}: {error}'))
    tab.on('request', lambda request: None if request.url.startswith(
        ('file:', 'data:', 'blob:', 'about:', 'http://127.0.0.1')) else
        problems.append(f'{tab.url}: asks {request.url}'))
    return tab


def picture(tab, name):
    tab.wait_for_timeout(800)
    tab.screenshot(path=PICTURES/f"{name.replace('/', '-')}.png", timeout=120_000)


def illegible(tab, selector, name):
    "What can hardly be read below the first element that matches."
    found = tab.query_selector(selector).evaluate(LEGIBLE)
    return [f'{name}: {text!r}: {why}' for text, why in found]


def run_page(context, url, page):
    "Run one notebook in JupyterLab, with pictures of its top and end; what went wrong."
    problems = []
    tab = context.new_page()  # JupyterLab asks for news of itself: those requests are its own
    tab.goto(f'{url}/lab/tree/nbs/{page}.ipynb?reset')
    tab.wait_for_selector('.jp-Notebook .jp-Cell', timeout=120_000)
    tab.wait_for_function("() => window.jupyterapp.shell.currentWidget?.sessionContext?.session"
                          "?.kernel?.status == 'idle'", timeout=120_000)
    problems += [f'{page}: {error}' for error in tab.evaluate(RUN)]
    for theme, name in (('JupyterLab Light', 'light'), ('JupyterLab Dark', 'dark')):
        tab.evaluate(THEME, theme)
        for place, share in (('top', 0), ('middle', .5), ('end', 1)):
            tab.evaluate("share => { const n = window.jupyterapp.shell.currentWidget.content;"
                         "n.scrollToItem(Math.round(share*(n.widgets.length-1)), 'start') }", share)
            picture(tab, f'lab_{page}_{name}_{place}')
        problems += illegible(tab, '.jp-Notebook', f'{page}, {name}')
    tab.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    tab.evaluate('() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()')
    tab.close()
    return problems


def read_page(browser, page, scheme):
    "Open one page of the site from the disk and search in it; what went wrong."
    problems = []
    context = browser.new_context(color_scheme=scheme, viewport=dict(width=1280, height=2400))
    tab = watched(context, problems)
    tab.goto((SITE/f'{page}.html').as_uri())
    picture(tab, f'html_{page}_{scheme}')
    tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    problems += illegible(tab, 'article', f'{page}.html, {scheme}')
    tab.click('[data-md-component=search-query]')
    tab.keyboard.type('learner', delay=100)
    try: tab.wait_for_selector('.md-search-result__item', timeout=60_000)
    except Exception as error: problems.append(f'{page}.html: the search finds nothing: {error}')
    if page == 'index':
        for words, wanted in SEARCHES.items():
            tab.goto((SITE/'index.html').as_uri())
            tab.click('[data-md-component=search-query]')
            tab.keyboard.type(words, delay=60)
            tab.wait_for_selector('.md-search-result__item', timeout=60_000)
            tab.wait_for_timeout(1500)
            first = tab.evaluate(FIRST)
            if not any(wanted in link for link in first): problems.append(
                f'a search for {words!r} begins with {first} instead of {wanted}')
    context.close()
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pages', nargs='*', default=PAGES)
    parser.add_argument('--all', action='store_true', help='every page, about 40 s each')
    args = parser.parse_args()
    chromium = shutil.which('chromium') or shutil.which('google-chrome')
    if not chromium: sys.exit('no Chromium on the PATH: install one (Debian: apt install chromium)')
    if not SITE.exists(): sys.exit('no _docs/site: run make docs first')
    every = [name_of(path) for path in page_paths() if name_of(path) != 'index']
    pages = every if args.all else args.pages
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir(parents=True)
    results = []
    def tell(name, read, *call):
        try: problems = read(*call)
        except Exception as error: problems = [f'{type(error).__name__}: {error}']
        print('FAILED' if problems else 'passed', name, flush=True)
        for problem in problems: print('   ', problem, flush=True)
        results.append(not problems)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        copy_project(folder)
        browser = play.chromium.launch(executable_path=chromium, args=QUIET)
        with jupyterlab(folder) as url:
            context = browser.new_context(viewport=dict(width=1280, height=1600))
            for page in pages: tell(f'{page} in JupyterLab', run_page, context, url, page)
        for page in ['index', *pages]:
            for scheme in ('light', 'dark'):
                tell(f'{page}.html, {scheme}', read_page, browser, page, scheme)
    print(f'{len(list(PICTURES.iterdir()))} pictures in {PICTURES.relative_to(ROOT)}')
    print(f'{results.count(True)} passed, {results.count(False)} failed')
    return not all(results)


if __name__ == '__main__': sys.exit(main())
