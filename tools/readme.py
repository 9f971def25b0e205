"""Write README.md from nbs/index.ipynb without Quarto; `--check` only says if it is up to date.

    python tools/readme.py [--check]"""
import re
import sys

import nbformat
import yaml
from execnb.nbio import nb2str, read_nb
from nbconvert import MarkdownExporter
from nbdev.config import get_config
from nbdev.processors import FilterDefaults


def title(source, config):
    "The front matter of a page, as the heading it stands for."
    meta = yaml.safe_load(source.strip().strip('-'))
    description = meta.get('description', config.description)
    return f"# {meta.get('title', config.title)}\n\n> {description}\n"


def readable(nb, config):
    "The notebook as a reader should see it: no directives, front matter as a title."
    nb.metadata['language_info'] = {'name': 'python'}  # dropped by nbdev_clean; fences need it
    for cell in nb.cells:
        if cell.cell_type == 'raw' and cell.source.startswith('---'):
            cell.source = title(cell.source, config)
        if cell.cell_type != 'code': continue
        cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M)
        cell.outputs = [output for output in cell.outputs
                        if '<style>' not in output.get('data', {}).get('text/html', '')]
    return nb


def readme(config):
    "The text of README.md."
    nb = read_nb(config.nbs_path/config.readme_nb)
    FilterDefaults()(nb)  # hidden cells out: what Quarto would be given
    nb = readable(nbformat.reads(nb2str(nb), 4), config)
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources['outputs']:
        sys.exit('index.ipynb has image outputs; link a file under nbs/images instead')
    # nbdev links names to the doc host where the package is installed, and not where it isn't
    text = re.sub(rf'\[(`[^`]+`)\]\({re.escape(config.doc_host)}[^)]*\)', r'\1', text)
    # the pages and pictures lie beside the index, not beside the README
    text = re.sub(r'\]\((?=[\w/]+\.(?:ipynb|svg|png)\b)', '](nbs/', text)
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


def main():
    config = get_config()
    path, text = config.config_path/'README.md', readme(config)
    if '--check' not in sys.argv: path.write_text(text, encoding='utf-8')
    elif not path.exists() or path.read_text(encoding='utf-8') != text:
        sys.exit('README.md is out of date: run python tools/readme.py')


if __name__ == '__main__': main()
