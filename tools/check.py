"""Check the notebooks and the package against the project's rules: its layers, names and habits.

    python tools/check.py

Prints one line for each problem, `nbs/x.ipynb cell <id>: message`; exits with 1 if there is any."""
import ast
import builtins
import gc
import re
import sys
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from pages import DEF, ROOT, Page, imports, n_lines, own_imports, page_paths, text_of
from stubs import outdated

LINE, PROSE = 100, 1.5  # columns; words per line of code, on pages of more than 40 lines
FIRST = 5               # the page's main name runs within so many code cells
N_ALL, N_ENTRIES = 160, 22  # names of nntrain.all; what stands directly in nntrain/
# A module imports from lower layers, or from its own package.
LAYERS = ('pubsub', 'state', 'learner data', 'metrics device dataloaders',
          'lrfind momentum progress training inspect', 'checkpoint',
          'tracking distributed inference variants', 'interop', 'cli', 'examples')
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names.split()}
# What these modules may import besides the standard library.
CORE = dict(pubsub={'nntrain._events'},  # a stub, which only type checkers read
            state={'torch', 'nntrain.pubsub'},
            learner={'torch', 'nntrain.pubsub', 'nntrain.state',
                     'fastcore.basics'})  # for @patch: a class on one page, a paragraph a method
BASES = {'tracking.loggers'}  # what it defines is there to be subclassed, also by subscribers
NO_PAGE = {'__main__', '_modidx', 'all'}  # `python -m nntrain` needs __main__
UNSAFE_MODULES = {'pickle', 'dill', 'cloudpickle', 'marshal', 'shelve'}
UNSAFE_CALLS = {'eval', 'exec', 'os.system', 'os.popen'}
UNSAFE_ARGUMENTS = {('weights_only', False), ('shell', True)}
MACHINE = re.compile(r'(?<![\w./:<])/(?:home|root|tmp|Users|opt|usr|var|mnt|private|w[o]rk)/'
                     r'|\b0x[0-9a-f]{8,}')


# --- who imports whom -----------------------------------------------------------------------------

def package_of(module): return module.split('.')[0]


def check_layers(pages):
    "Library code imports lower layers; subscribers no sibling; the core only what CORE says."
    subscribers = {name: page.module for page in pages if page.module not in {*CORE, *BASES}
                   for name in page.subscribers}
    for page, cell in [(page, cell) for page in pages for cell in page.exported]:
        mine = package_of(page.module)
        for name in sorted(own_imports(cell.nodes)):
            other = package_of(name)
            if name == 'all': yield page, cell, 'library code imports nntrain.all'
            elif other not in LAYER and name[0] != '_':
                yield page, cell, f'nntrain.{name} stands in no layer'
            elif name[0] != '_' and other != mine and LAYER[other] >= LAYER[mine]:
                yield page, cell, f'imports nntrain.{name}: {other} is no lower layer than {mine}'
        for node in cell.nodes if page.subscribers else ():
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else ()
            for name in names:
                if not subscribers.get(name, '').startswith(f'{mine}.'): continue
                yield page, cell, f'imports {name}, a sibling subscriber'
        for name in imports(cell.nodes) if page.module in CORE else ():
            allowed = CORE[page.module]
            if not {name, name.split('.')[0]} & (allowed | sys.stdlib_module_names):
                yield page, cell, f'imports {name}; besides the standard library ' \
                                  f'{page.module} may import {sorted(allowed) or "nothing"}'


def check_cycles(pages):
    graph = {page.module: set().union(*(own_imports(cell.nodes) for cell in page.exported))
             for page in pages if page.module}
    try: TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield None, None, f"modules import each other: {' -> '.join(error.args[1])}"


# --- classes and private names --------------------------------------------------------------------

def names_in(nodes, without_bases=False):
    "How often each name is read in the nodes of a tree."
    bases = {id(base) for node in nodes if isinstance(node, ast.ClassDef)
             for base in node.bases} if without_bases else ()
    return Counter(node.attr if isinstance(node, ast.Attribute) else node.id for node in nodes
                   if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in bases)


def check_bases(pages):
    "No class of the library is there for one subclass alone."
    children, home, used, called = defaultdict(set), {}, Counter(), Counter()
    for page in pages:
        for cell in page.code:
            lesson = not cell.exported
            names = names_in(cell.nodes, without_bases=not lesson)
            used.update(names)
            if not lesson: called.update(names)
            for node in [n for n in cell.nodes if isinstance(n, ast.ClassDef)]:
                if not lesson: home[node.name] = page, cell
                for base in node.bases:
                    name = ast.unparse(base).split('.')[-1]
                    if not lesson: children[name].add(node.name)
    for name, (page, cell) in home.items():
        private_only = name.startswith('_') and not called[name]  # but as a base
        if len(children[name]) == 1 and (private_only or not used[name]):
            yield page, cell, f'{name} is the base of {[*children[name]][0]} alone: make them one'


def private_names(page):
    "The names with one underscore that the module of `page` defines or assigns."
    found = set()
    for cell in page.exported:
        for node in cell.nodes:
            if isinstance(node, (*DEF, ast.ClassDef)): found.add(node.name)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): found.add(node.id)
    return {name for name in found if re.match('_[^_]', name)}


def check_private(pages):
    "No module reads a private name of another."
    defined = {page.module: private_names(page) for page in pages if page.module}
    others_of = {mine: set().union(*(names for module, names in defined.items()
                                     if module != mine)) - defined[mine] for mine in defined}
    for page, cell in [(page, cell) for page in pages for cell in page.exported]:
        others = others_of[page.module]
        for name in sorted({n.attr for n in cell.nodes if isinstance(n, ast.Attribute)} & others):
            yield page, cell, f'reads `.{name}`, which is private to another module'
        for node in cell.nodes:
            if not isinstance(node, ast.ImportFrom): continue
            if not (node.module or '').startswith('nntrain'): continue
            for alias in node.names:
                if re.match('_[^_]', alias.name):
                    yield page, cell, f'imports the private {alias.name} of {node.module}'


# --- style ----------------------------------------------------------------------------------------

def check_lines(page):
    for cell in page.code:
        longest = max(map(len, cell.source.splitlines()), default=0)
        if longest > LINE: yield page, cell, f'line of {longest} columns'
    ratio, n = page.words_per_line
    if n > 40 and ratio < PROSE:
        yield page, None, f'{ratio:.2f} words of prose per line of code, over {n} lines'


def check_main_name(page, name):
    "The name that the contents give first runs within the first code cells."
    runs = [cell for cell in page.code if 'default_exp' not in cell.flags
            and not all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in cell.tree.body)]
    for cell in runs[:FIRST]:
        inside = [node for node in cell.tree.body if not isinstance(
            node, (*DEF, ast.ClassDef, ast.Import, ast.ImportFrom))]
        if any(names_in([*ast.walk(node)])[name] for node in inside): return
    yield page, None, f'{name} does not run within the first {FIRST} code cells'


def check_docstrings(page):
    for cell in page.exported:
        for node in cell.definitions if cell.public else ():
            if not node.name.startswith('_') and not ast.get_docstring(node):
                yield page, cell, f'{node.name} has no docstring'


def undocumented(cell, function):
    "All parameters of `function`, and those without a comment of their own, as fastcore reads it."
    args = function.args
    params = args.posonlyargs + args.args + args.kwonlyargs
    patched = any('patch' in ast.unparse(decorator) for decorator in function.decorator_list)
    params = [param for param in params[patched:] if param.arg not in ('self', 'cls')]
    lines = ['', *cell.source.splitlines()]
    owner = {param.lineno: param for param in params}  # a comment belongs to the last on its line
    has_comment = lambda n: re.search(r'#\s*\S', lines[n]) or (
        n-1 > function.lineno and lines[n-1].strip().startswith('#'))
    return params, [p.arg for p in params if owner[p.lineno] is not p or not has_comment(p.lineno)]


def check_docments(page):
    "Public functions and `__init__` explain every parameter; other methods every one or none."
    for cell in page.exported:
        for node in cell.definitions if cell.public else ():
            if node.name.startswith('_'): continue
            for function in [node] if isinstance(node, DEF) else node.body:
                if not isinstance(function, DEF): continue
                params, missing = undocumented(cell, function)
                required = function is node or function.name == '__init__'
                if missing and (required or len(missing) < len(params)):
                    yield page, cell, f'{function.name} ({node.name}): no comment on ' \
                                      f'{", ".join(missing)}'


def bad_habit(node, cell):
    "What is wrong with `node` in itself, or None."
    if isinstance(node, ast.ImportFrom) and node.names[0].name == '*':
        return None if node.module == 'nntrain.all' and not cell.exported else \
            f'from {node.module} import *'
    if isinstance(node, ast.ExceptHandler) and node.type is None: return 'bare except'
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'globals': return 'globals()'
    if isinstance(node, (*DEF, ast.Lambda)):
        for default in filter(None, node.args.defaults + node.args.kw_defaults):
            if re.match(r'[\[{]|(list|dict|set)\(', ast.unparse(default)):
                return f'mutable default {ast.unparse(default)}'


def check_habits(page):
    for cell in page.code:
        for found in filter(None, (bad_habit(node, cell) for node in cell.nodes)):
            yield page, cell, found


def check_outputs(page):
    count = Counter(cell.id for cell in page.cells)
    for cell in page.code:
        if not cell.id or count[cell.id] > 1: yield page, cell, 'needs an id of its own'
        for output in cell.outputs:
            data = output.get('data', {})
            if output['output_type'] == 'error': yield page, cell, f"output {output['ename']}"
            if any('widget' in kind for kind in data): yield page, cell, 'output is a widget'
            texts = [output.get('text', ''), *(v for k, v in data.items() if k[:5] == 'text/')]
            for found in {m[0] for text in texts for m in MACHINE.finditer(text_of(text))}:
                yield page, cell, f'output shows a path or an address of this machine: {found}'
    if page.exported and not any(cell.outputs for cell in page.code):
        yield page, None, 'has no outputs: run tools/run_nbs.py'


def check_solutions(page):
    "Every exercise has a folded solution, with code that asserts it."
    text = '\n'.join(cell.source for cell in page.lesson if cell.kind == 'markdown')
    exercises = re.findall(r'^\d+\. ', text.partition('## Exercises')[2], re.M)
    for cell in page.cells:
        if cell.kind == 'markdown' and cell.source.startswith('### Solution') and not cell.folded:
            yield page, cell, 'a solution that is not folded'
    if '## Exercises' in text and not exercises: yield page, None, 'its exercises have no numbers'
    for n in range(1, len(exercises)+1):
        starts = [i for i, cell in enumerate(page.solutions)
                  if cell.folded and cell.source.startswith(f'### Solution {n}')]
        if len(starts) != 1:
            yield page, None, f'{len(starts)} solutions of exercise {n}, expected 1'
            continue
        rest = page.solutions[starts[0]+1:]
        end = next((i for i, cell in enumerate(rest) if cell.folded), len(rest))
        code = '\n'.join(cell.source for cell in rest[:end] if cell.kind == 'code')
        if not re.search(r'^\s*(assert|test_\w+\(|with expect_fail\()', code, re.M):
            yield page, None, f'solution {n} asserts nothing'


def check_page(page):
    try:
        for check in (check_lines, check_docstrings, check_docments, check_habits, check_outputs,
                      check_solutions):
            yield from check(page)
    except SyntaxError as error: yield page, None, f'cannot be parsed: {error}'


# --- the package ----------------------------------------------------------------------------------

def check_safe(path):
    "Nothing that runs what a file or a string contains."
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            unsafe = {name.split('.')[0] for name in imports([node])} & UNSAFE_MODULES
            if unsafe: yield f'line {node.lineno} imports {", ".join(unsafe)}'
        if not isinstance(node, ast.Call): continue
        if ast.unparse(node.func) in UNSAFE_CALLS:
            yield f'line {node.lineno} calls {ast.unparse(node.func)}()'
        for keyword in node.keywords:
            value = getattr(keyword.value, 'value', None)
            if (keyword.arg, value) in UNSAFE_ARGUMENTS and isinstance(value, bool):
                yield f'line {node.lineno} says {keyword.arg}={value}'


def public_names(path):
    "The `__all__` of a module."
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '__all__':
            return ast.literal_eval(node.value)
    return []


def check_package(pages):
    "One module for each notebook; nntrain.all small and harmless; nothing unsafe."
    package = ROOT/'nntrain'
    modules = {page.module for page in pages if page.module}
    files = {path.relative_to(package).with_suffix('').as_posix().replace('/', '.'): path
             for path in sorted(package.rglob('*.py')) if path.name != '__init__.py'}
    for name in sorted((files.keys() ^ modules) - NO_PAGE):
        yield f'nntrain.{name}: ' + ('no notebook makes it' if name in files else 'is missing')
    n = len([p for p in package.iterdir() if p.name[0] not in '_.'])
    if n > N_ENTRIES: yield f'nntrain/: {n} entries stand directly in it, at most {N_ENTRIES}'
    yield from check_all(files['all'].read_text(encoding='utf-8'))
    for name, path in files.items():
        yield from (f'nntrain.{name}: {message}' for message in check_safe(path))


def check_all(source):
    "What is wrong with nntrain/all.py: too many names, or one that hides another's."
    import torch
    names = [alias.asname or alias.name for node in ast.parse(source).body
             if isinstance(node, ast.ImportFrom) for alias in node.names]
    if '*' in names: yield 'nntrain.all: name what is imported, no `*`'
    if len(names) > N_ALL: yield f'nntrain.all: {len(names)} names, at most {N_ALL}'
    for name in [name for name, n in Counter(names).items() if n > 1]:
        yield f'nntrain.all: {name} comes twice'
    for name in names:
        if hasattr(builtins, name): yield f'nntrain.all: {name} hides a name of Python'
        if hasattr(torch, name): yield f'nntrain.all: {name} hides torch.{name}'


def check_methods(pages):
    "The table of methods of the learner against the pages that patch them."
    sys.path.insert(0, str(ROOT))
    from nntrain.learner import METHODS
    patched = {}
    for page in [page for page in pages if page.module not in (None, 'learner', 'state')]:
        for cell in page.exported:
            for node in cell.definitions:
                first = node.args.args[:1] if isinstance(node, DEF) else []
                about = ast.unparse(first[0].annotation or first[0]) if first else ''
                is_patch = any('patch' in ast.unparse(d) for d in node.decorator_list)
                if is_patch and re.search(r'\bLearner\b', about) and node.name[0] != '_':
                    patched[node.name] = page.module
    for name in sorted({*METHODS, *patched}):
        if METHODS.get(name) != patched.get(name):
            yield f'nntrain.learner.METHODS[{name!r}] is {METHODS.get(name)!r}, ' \
                  f'the page that patches it is {patched.get(name)!r}'


def check_stubs():
    "What type checkers are told against the modules."
    for path in outdated(): yield f'{path} is out of date: run python tools/stubs.py'


def check_scripts():
    "The lines of hand-written Python files."
    for path in [ROOT/'setup.py', ROOT/'nntrain/all.py', *sorted(ROOT.glob('tools/*.py')),
                 *sorted(ROOT.glob('benchmarks/*.py'))]:
        for i, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
            if len(line) > LINE:
                yield f'{path.relative_to(ROOT)}: line {i} has {len(line)} columns'


def main_names():
    "The first name in backticks of each page's row in contents.ipynb."
    from book import parts
    found = {}
    for _, rows in parts():
        for page, text in rows:
            name = re.search(r'`(?:[\w]+\.)*(\w+)', text)
            if name: found[page] = name[1]
    return found


def main():
    gc.disable()  # the trees of all cells stay: to count them over and over takes half the time
    pages = [Page(path) for path in page_paths()]
    found = [problem for page in pages for problem in check_page(page)]
    if not any('cannot be parsed' in message for _, _, message in found):
        for check in (check_layers, check_cycles, check_bases, check_private):
            found += check(pages)
        names = main_names()
        for page in pages: found += check_main_name(page, names[page.name]) \
                if page.name in names else ()
    lines = []
    for page, cell, message in found:
        where = f'nbs/{page.name}.ipynb' if page else 'nntrain'
        lines.append(f"{where}{f' cell {cell.id}' if cell else ''}: {message}")
    lines += [*check_package(pages), *check_methods(pages), *check_stubs(), *check_scripts()]
    print(*lines, sep='\n', end='\n' if lines else '')
    return 1 if lines else 0


if __name__ == '__main__': sys.exit(main())
