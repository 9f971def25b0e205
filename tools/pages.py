"""The notebooks as tools/check.py reads them: pages made of cells; what Python source imports."""
import ast
import json
import re
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT/'nbs'
DEF = ast.FunctionDef, ast.AsyncFunctionDef
FOLD = 'jp-MarkdownHeadingCollapsed'  # on a heading that JupyterLab shows folded


def page_paths():
    "The notebooks: the series in `nbs`, then its folders; nothing hidden."
    paths = [path for path in NBS.rglob('*.ipynb')
             if not any(part[0] in '_.' for part in path.relative_to(NBS).parts)]
    return sorted(paths, key=lambda path: (len(path.relative_to(NBS).parts), path))


def name_of(path):
    "A page by its place: 'data/01_collate'."
    return path.relative_to(NBS).with_suffix('').as_posix()


def text_of(value): return ''.join(value) if isinstance(value, list) else value


def n_lines(text):
    "Lines of code: neither blank nor only a comment."
    lines = [line.strip() for line in text.splitlines()]
    return sum(1 for line in lines if line and not line.startswith('#'))


def imports(nodes):
    "The full name of every module that the nodes of a tree import, also inside functions."
    for node in nodes:
        if isinstance(node, ast.Import): yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == 'nntrain':
            yield from (f'nntrain.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ('nntrain.' if node.level else '') + (node.module or '')


def own_imports(nodes):
    "The modules of nntrain that the nodes import, without `nntrain.`."
    return {name.removeprefix('nntrain.') for name in imports(nodes) if name.startswith('nntrain.')}


class Cell:
    "A cell of a notebook, with what its directives say."

    def __init__(self, data):
        self.id, self.kind = data.get('id'), data['cell_type']
        self.outputs = data.get('outputs', [])
        self.folded = bool(data['metadata'].get(FOLD))
        self.source = text_of(data['source'])
        flags = re.findall(r'^#\|\s*([\w-]+)', self.source, re.M)
        self.flags = set(flags if self.kind == 'code' else ())
        self.exported = bool(self.flags & {'export', 'exports', 'exporti'})
        self.public = self.exported and 'exporti' not in self.flags

    @cached_property
    def tree(self):
        "The cell as Python; IPython's own lines (`%magic`, `!command`) count as `pass`."
        if re.search(r'^%%', self.source, re.M): return ast.parse('')
        return ast.parse(re.sub(r'^(\s*)[%!].*$', r'\1pass', self.source, flags=re.M))

    @cached_property
    def nodes(self):
        "All of the tree."
        return [*ast.walk(self.tree)]

    @cached_property
    def definitions(self):
        "The functions and classes at the top level of the cell."
        return [node for node in self.tree.body if isinstance(node, (*DEF, ast.ClassDef))]

    def stretch(self, node):
        "The source of `node`, decorators included."
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        return '\n'.join(self.source.splitlines()[first-1:node.end_lineno])


class Page:
    "A notebook: its name, the module it makes, its cells."

    def __init__(self, path):
        self.name = name_of(path)
        self.cells = [Cell(data) for data in json.loads(path.read_text(encoding='utf-8'))['cells']]
        first = next((i for i, cell in enumerate(self.cells)
                      if cell.folded and '# Solution' in cell.source), len(self.cells))
        self.lesson, self.solutions = self.cells[:first], self.cells[first:]
        self.code = [cell for cell in self.cells if cell.kind == 'code']
        self.exported = [cell for cell in self.code if cell.exported]
        source = '\n'.join(cell.source for cell in self.code)
        named = re.search(r'^#\|\s*default_exp (\S+)', source, re.M)
        self.module = named[1] if named else None

    @cached_property
    def subscribers(self):
        "The classes of the page with a base named `Subscriber` or `...S`."
        classes = [node for cell in self.exported for node in cell.definitions
                   if isinstance(node, ast.ClassDef)]
        return [node.name for node in classes for base in node.bases
                if re.search(r'(Subscriber|S)$', ast.unparse(base).split('.')[-1])]

    @cached_property
    def words_per_line(self):
        "Words of prose per line of code in the lesson, and its lines of code."
        lines = sum(n_lines(cell.source) for cell in self.lesson if cell.kind == 'code')
        prose = [cell.source for cell in self.lesson if cell.kind == 'markdown']
        return sum(len(re.findall(r'\w+', text)) for text in prose)/max(lines, 1), lines
