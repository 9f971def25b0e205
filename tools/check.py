"""Check the notebooks against the project's rules: who imports whom, and the numbers of the style.

    python tools/check.py

Prints one line for each problem, `nbs/x.ipynb cell <id>: message`; exits with 1 if there is any."""
import ast
import re
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from pages import DEF, Page, imports, n_lines, own_imports, text_of

ROOT = Path(__file__).resolve().parent.parent
# The most of each (for prose: the least words per line). Lines of code: see `pages.n_lines`.
LIMITS = dict(line=100, cell=25, function=25, module=200, shown=3, prose=1.5)
# Who may go beyond a limit, and why: (page, limit, def or class; '' for the page) -> number.
EXCEPTIONS = {
    ('02_learner', 'cell', 'Loop'): 60,  # the loop is one page; its shape is the lesson
    ('02_learner', 'module', ''): 320,   # loop, fit and the errors of both: half is messages
    ('09_state', 'module', ''): 280,    # what a run consists of: one list, in one file
    ('03_pubsub', 'module', ''): 320,    # the event engine: one file that imports nothing of ours
    ('inspect/01_loop', 'module', ''): 220,   # the picture of the loop; its style sheet is data
    ('inspect/09_as_code', 'module', ''): 270,   # one writer, from handlers to the script: read as a whole
}
# What these modules may import besides the standard library.
CORE = dict(pubsub=set(), state={'torch'}, learner={'torch', 'nntrain.pubsub', 'nntrain.state'})
BASES = {'trackers'}  # what they define is there to be subclassed, also by other subscribers
EARLY = {'learner': {'pubsub', 'state'}}  # the one notebook that uses what the next two build
# A command; classes that cannot be made without an extra; names that would hide those of torch.
NOT_IN_ALL = {'cli', 'estimators', 'optimizers'}
NO_PAGE = {'__init__', '__main__', '_modidx', 'all'}  # `python -m nntrain` needs __main__
UNSAFE_MODULES = {'pickle', 'dill', 'cloudpickle', 'marshal', 'shelve'}
UNSAFE_CALLS = {'eval', 'exec', 'os.system', 'os.popen'}
UNSAFE_ARGUMENTS = {('weights_only', False), ('shell', True)}
MACHINE = re.compile(r'(?<![\w./:<])/(?:home|root|tmp|Users|opt|usr|var|mnt|private|w[o]rk)/'
                     r'|\b0x[0-9a-f]{8,}')


def limit(page, kind, *names):
    allowed = [EXCEPTIONS.get((page.stem, kind, name), LIMITS[kind]) for name in names or ['']]
    return min(allowed) if kind == 'prose' else max(allowed)


# --- who imports whom -----------------------------------------------------------------------------

def check_imports(pages):
    "Notebooks import earlier ones; subscribers no sibling; the core only what CORE says."
    numbers = {page.module: page.number for page in pages if page.module}
    numbers['all'] = max(numbers.values(), default='')
    subscribers = {page.module for page in pages if page.is_subscriber} - CORE.keys() - BASES
    for page, cell in [(page, cell) for page in pages for cell in page.code]:
        modules = own_imports(cell.tree) & numbers.keys()
        for name in sorted(modules - EARLY.get(page.module, set())):
            if numbers[name] >= page.number:
                yield page, cell, f'imports nntrain.{name} of notebook {numbers[name]}: not earlier'
        if not cell.exported: continue
        if 'all' in modules: yield page, cell, 'library code imports nntrain.all'
        if page.is_subscriber:
            for name in sorted(modules & subscribers):
                yield page, cell, f'imports nntrain.{name}, a sibling subscriber module'
        if page.module in CORE:
            allowed = CORE[page.module]
            for name in imports(cell.tree):
                if not {name, name.split('.')[0]} & (allowed | sys.stdlib_module_names):
                    yield page, cell, f'imports {name}; besides the standard library ' \
                                      f'{page.module} may import {sorted(allowed) or "nothing"}'


def check_cycles(pages):
    graph = {page.module: set().union(*(own_imports(cell.tree) for cell in page.exported))
             for page in pages if page.module}
    try: TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield None, None, f"modules import each other: {' -> '.join(error.args[1])}"


# --- style ----------------------------------------------------------------------------------------

def check_sizes(page):
    for cell in page.code:
        names = [node.name for node in cell.definitions]
        longest = max(map(len, cell.source.splitlines()), default=0)
        if longest > limit(page, 'line', *names): yield page, cell, f'line of {longest} columns'
        n = n_lines(cell.source)
        if n > limit(page, 'cell', *names): yield page, cell, f'cell of {n} lines'
        for node in ast.walk(cell.tree):
            if not isinstance(node, DEF): continue
            n = n_lines(cell.stretch(node))
            if n > limit(page, 'function', node.name): yield page, cell, f'{node.name}: {n} lines'
    n = sum(n_lines(cell.source) for cell in page.exported)
    if n > limit(page, 'module'): yield page, None, f'module of {n} lines of code'
    ratio, n = page.words_per_line
    if n > 40 and ratio < limit(page, 'prose'):
        yield page, None, f'{ratio:.2f} words of prose per line of code, over {n} lines'


def check_shown(page):
    "Every public definition has a docstring and is named in a visible lesson cell soon after."
    for i, cell in enumerate(page.code):
        for node in cell.definitions if cell.public else ():
            if node.name.startswith('_'): continue
            if not ast.get_docstring(node): yield page, cell, f'{node.name} has no docstring'
            n = limit(page, 'shown', node.name)
            lessons = [near.source for near in page.code[i+1:i+1+n]
                       if not near.exported and 'hide' not in near.flags]
            if not any(re.search(rf'\b{node.name}\b', source) for source in lessons):
                yield page, cell, f'{node.name} is not shown in the next {n} code cells'


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
        for found in filter(None, (bad_habit(node, cell) for node in ast.walk(cell.tree))):
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
    exercises = re.findall(r'^\d+\. ', text.partition('## Try it')[2], re.M)
    if '## Try it' in text and not exercises: yield page, None, 'its exercises have no numbers'
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
        for check in (check_sizes, check_shown, check_docments, check_habits, check_outputs,
                      check_solutions):
            yield from check(page)
    except SyntaxError as error: yield page, None, f'cannot be parsed: {error}'


# --- the package ----------------------------------------------------------------------------------

def check_safe(path):
    "Nothing that runs what a file or a string contains."
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            unsafe = {name.split('.')[0] for name in imports(node)} & UNSAFE_MODULES
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
    "One module for each notebook, each in nntrain.all, no name in two; nothing unsafe."
    modules = {page.module for page in pages if page.module}
    files = {path.stem: path for path in sorted((ROOT/'nntrain').glob('*.py'))}
    for name in sorted((files.keys() ^ modules) - NO_PAGE):
        yield f'nntrain/{name}.py: ' + ('no notebook makes it' if name in files else 'missing')
    listed = own_imports(ast.parse(files['all'].read_text(encoding='utf-8')))
    for name in sorted((modules ^ listed) - NOT_IN_ALL):
        yield f'nntrain/all.py: {name} ' + ('is missing' if name in modules else 'has no notebook')
    count = Counter(name for stem in listed & files.keys() for name in public_names(files[stem]))
    for name in [name for name, n in count.items() if n > 1]:
        yield f'nntrain/all.py: two modules define {name}'
    for name, path in files.items():
        yield from (f'nntrain/{name}.py: {message}' for message in check_safe(path))


def check_scripts():
    "The lines of hand-written Python files."
    for path in [ROOT/'setup.py', ROOT/'nntrain/all.py', *sorted(ROOT.glob('tools/*.py')),
                 *sorted(ROOT.glob('benchmarks/*.py'))]:
        for i, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
            if len(line) > LIMITS['line']:
                yield f'{path.relative_to(ROOT)}: line {i} has {len(line)} columns'


def main():
    pages = [Page(path) for path in sorted((ROOT/'nbs').glob('[!_.]*.ipynb'))]
    found = [problem for page in pages for problem in check_page(page)]
    if not any('cannot be parsed' in message for _, _, message in found):
        found += [*check_imports(pages), *check_cycles(pages)]
    lines = []
    for page, cell, message in found:
        where = f'nbs/{page.stem}.ipynb' if page else 'nntrain'
        lines.append(f"{where}{f' cell {cell.id}' if cell else ''}: {message}")
    lines += [*check_package(pages), *check_scripts()]
    print(*lines, sep='\n', end='\n' if lines else '')
    return 1 if lines else 0


if __name__ == '__main__': sys.exit(main())
