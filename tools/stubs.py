"""Tell type checkers what they cannot see: methods that pages add, and the names of nntrain.all.

    python tools/stubs.py [--check]

Writes a `.pyi` beside each module with a class of CLASSES, to which pages add methods by `@patch`
that users call, the events of a subscriber in nntrain/_events.pyi, and the list of names at the
end of nntrain/all.py. Everything is read from the exported modules and, for the attributes of a
learner, from the table of nbs/02_learner.ipynb.
`--check` changes nothing."""
import ast
import builtins
import json
import re
import sys
import textwrap
from collections import defaultdict

from pages import NBS, ROOT, text_of

PACKAGE = ROOT/'nntrain'
ALL = PACKAGE/'all.py'
LIST = '# Written by tools/stubs.py, for type checkers\n'
HEAD = '# Written by tools/stubs.py from the modules and pages: do not edit.\n'
EVENT = re.compile('(before|after|cleanup)_|on_ranks$|_[^_]')
CLASSES = {'Learner', 'History', 'Results', 'TimingS', 'Preparation', 'StreamLoader',
           'OrderedLoader', 'SequenceDataset', 'CheckpointS'}
TYPES = dict(
    lr='float', n_epochs='int', epoch='int', iter='int', n_done='int',
    train_iter='int', n_steps='int', n_samples='int', n_iter='int | None', training='bool',
    pct_train='float | None', row='dict[str, Any]', counts='dict[str, int]', fitting='bool',
    error='BaseException | None', subs='Subs',
    optimizers='list[torch.optim.Optimizer]', open_phases='list[str]')
FUNCTION = ast.FunctionDef, ast.AsyncFunctionDef


def name_of(path):
    "nntrain/data/text.py is `data.text`."
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    return '.'.join(part for part in parts if part != '__init__')


def trees():
    "Module -> syntax tree, for all modules with a page."
    found = {name_of(path): ast.parse(path.read_text(encoding='utf-8'))
             for path in sorted(PACKAGE.rglob('*.py')) if path.name[:2] not in ('__', '_m')}
    return {name: tree for name, tree in found.items() if name != 'all'}


def public_names():
    "Name -> module, as nntrain/all.py imports them."
    tree = ast.parse(ALL.read_text(encoding='utf-8'))
    return {alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom)
            for alias in node.names}


def patch_of(node):
    "(class, kind) if a function is patched into a class; kind is what fastcore's `patch` was told."
    if not isinstance(node, FUNCTION) or not node.args.args: return None
    for decorator in map(ast.unparse, node.decorator_list):
        cls = node.args.args[0].annotation
        if decorator.split('(')[0] == 'patch' and isinstance(cls, ast.Name):
            kind = re.search(r'\((\w+)=True', decorator)
            return cls.id, kind[1] if kind else ''


def imports_of(tree, module):
    "Name -> the import statement that brings it, with absolute names."
    found, package = {}, ['nntrain', *module.split('.')]
    for node in tree.body:
        if not isinstance(node, (ast.Import, ast.ImportFrom)): continue
        for alias in node.names:
            one = ast.Import([alias])
            if isinstance(node, ast.ImportFrom):
                above = package[:-node.level] if node.level else []
                one = ast.ImportFrom('.'.join([*above, *filter(None, [node.module])]), [alias], 0)
            found[(alias.asname or alias.name).split('.')[0]] = ast.unparse(one)
    return found


def names_in(node):
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def annotations(function):
    "The names that the annotations of a function use."
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs,
             function.args.vararg, function.args.kwarg]
    nodes = [arg.annotation for arg in every if arg is not None and arg.annotation is not None]
    nodes += [function.returns] if function.returns is not None else []
    return set().union(*map(names_in, nodes))


def literal(node):
    "The type that a default or a value shows, or None."
    if not isinstance(node, ast.Constant) or node.value is None: return None
    return type(node.value).__name__


def signature(function, drop_self_type=False):
    "`(a: int=1, *b) -> c`: of the defaults only literals are shown; one of None allows None."
    args = ast.parse(f'def f({ast.unparse(function.args)}): 0').body[0].args
    if drop_self_type: args.args[0].annotation = None
    positional = [*args.posonlyargs, *args.args]
    pairs = [*zip(positional[len(positional)-len(args.defaults):], args.defaults),
             *zip(args.kwonlyargs, args.kw_defaults)]
    for arg, default in pairs:
        if arg.annotation is not None and default is not None and ast.unparse(default) == 'None':
            arg.annotation = ast.parse(f'{ast.unparse(arg.annotation)} | None', mode='eval').body
    shown = lambda default: default if default is None or literal(default) or ast.unparse(
        default) in ('None', '()') else ast.Constant(...)
    args.defaults = [*map(shown, args.defaults)]
    args.kw_defaults = [*map(shown, args.kw_defaults)]
    returns = f' -> {ast.unparse(function.returns)}' if function.returns is not None else ''
    return f'({ast.unparse(args)}){returns}'


def stub_of(function, decorators=(), doc=False, drop_self_type=False):
    "Lines of a function: its decorators, signature, and with `doc` its sentence."
    text = ast.get_docstring(function)
    body = f'\n    {json.dumps(text, ensure_ascii=False)}\n    ...' if doc and text else ' ...'
    head = f'def {function.name}{signature(function, drop_self_type)}:{body}'
    return [*(f'@{decorator}' for decorator in decorators), *head.split('\n')]


def targets(node):
    "Names that an assignment gives values to: `x` and `self.x`, in `a,b = ...` too."
    found = []
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        found += [t for t in ast.walk(target) if isinstance(t, (ast.Name, ast.Attribute))
                  and isinstance(t.ctx, ast.Store)]
    return found


def own_attributes(node):
    "Attribute -> type, of a class body and of `self.x = ...` in its methods."
    found = {}
    for part in node.body:
        if isinstance(part, (ast.Assign, ast.AnnAssign)):
            value = getattr(part, 'annotation', None)
            shown = ast.unparse(value) if value is not None else literal(part.value) or 'Any'
            found |= {t.id: shown for t in targets(part) if isinstance(t, ast.Name)}
        if not isinstance(part, FUNCTION) or not part.args.args: continue
        me = part.args.args[0].arg
        for inner in ast.walk(part):
            if not isinstance(inner, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For)): continue
            for t in targets(inner):
                if isinstance(t, ast.Attribute) and ast.unparse(t.value) == me:
                    found.setdefault(t.attr, 'Any')
    return found


def learner_attributes(mine):
    "Attribute -> type: the first column of the table of 02_learner, without the views of a batch."
    page = json.loads((NBS/'02_learner.ipynb').read_text(encoding='utf-8'))
    rows = [line for cell in page['cells'] for line in text_of(cell['source']).split('\n')
            if cell['cell_type'] == 'markdown' and line.startswith('| `') and line.count('|') == 5]
    at = next(i for i, line in enumerate(rows) if line.startswith('| `model '))
    names = [name for line in rows[at:] for quoted in re.findall('`([^`]+)`', line.split('|')[1])
             for name in quoted.split()]
    views = {part.name for part in mine['BatchViews'].body if isinstance(part, FUNCTION)}
    return {name: TYPES.get(name, 'Any') for name in names if name not in views}


def class_stub(node, patched, extra):
    "Lines of a class, with the methods that are patched into it."
    methods = {part.name for part in node.body if isinstance(part, FUNCTION)} | {*patched}
    held = {**own_attributes(node), **extra}
    lines = [f'    {name}: {kind}' for name, kind in held.items()
             if name not in methods and not name.startswith('_')]
    for part in node.body:
        if isinstance(part, FUNCTION) and part.name not in patched and (
                part.name[0] != '_' or part.name[:2] == '__'):
            named = [d for d in map(ast.unparse, part.decorator_list)
                     if d in ('property', 'classmethod', 'staticmethod') or d.endswith('.setter')]
            lines += [f'    {line}' for line in stub_of(part, named)]
    for function, kind in patched.values():
        decorators = [dict(as_prop='property', cls_method='classmethod')[kind]] if kind else []
        shown = stub_of(function, decorators, doc=True, drop_self_type=True)
        lines += [f'    {line}' for line in shown]
    bases = [ast.unparse(base) for base in [*node.bases, *node.keywords]]
    head = f"class {node.name}{'(' if bases else ''}{', '.join(bases)}{')' if bases else ''}:"
    return [head, *(lines or ['    ...'])]


def module_stub(name, modules, patches):
    "The text of a module's stub."
    tree, lines = modules[name], []
    imported = {'Any': 'from typing import Any'} | imports_of(tree, name)
    mine = {node.name: node for node in tree.body if isinstance(node, (*FUNCTION, ast.ClassDef))}
    for node in tree.body:
        if isinstance(node, FUNCTION) and not patch_of(node) and node.name[0] != '_':
            lines += stub_of(node)
        if isinstance(node, (ast.Assign, ast.AnnAssign)): lines += [
            f'{t.id}: {literal(node.value) or "Any"}' for t in targets(node)
            if isinstance(t, ast.Name) and t.id[0] != '_']
        if not isinstance(node, ast.ClassDef): continue
        added = patches.get((name, node.name), ())
        extra = learner_attributes(mine) if node.name == 'Learner' else {}
        lines += ['', *class_stub(node, {f.name: (f, kind) for _, f, kind in added}, extra)]
        for source, function, _ in added:
            brought = imports_of(modules[source], source)
            for used in annotations(function) - {*dir(builtins), *mine, *imported}:
                imported[used] = brought.get(used, f'from nntrain.{source} import {used}')
    text = '\n'.join(lines) + '\n'
    used = [line for name, line in imported.items() if re.search(rf'\b{name}\b', text)]
    return HEAD + '\n'.join([*sorted(used), text])


def with_all(source, homes):
    "nntrain/all.py with the list of its names, without which a checker takes them for private."
    names = textwrap.fill(', '.join(map(repr, homes)), 100, initial_indent='    ',
                          subsequent_indent='    ')
    return f'{source.partition(LIST)[0].rstrip()}\n\n{LIST}__all__ = [\n{names}]\n'


def events_stub():
    "The text of nntrain/_events.pyi: each event as a method, with the line that `dir` shows."
    sys.path.insert(0, str(ROOT))
    from nntrain.pubsub import CANCEL, Subscriber, event_texts
    texts = {'after_create': Subscriber.after_create.__doc__}
    for phase, cancel in CANCEL.items(): texts |= event_texts(phase, cancel)
    lines = [f'    def {name}(self, learn: Any, /) -> Any:\n        {json.dumps(text)}\n        ...'
             for name, text in texts.items()]
    return '\n'.join([f'{HEAD}from typing import Any\n', 'class Events:', *lines, ''])


def stubs():
    "Path -> text, of all stubs."
    modules, homes = trees(), public_names()
    of_class = {(node.name): name for name, tree in modules.items() for node in tree.body
                if isinstance(node, ast.ClassDef)}
    patches, wanted = defaultdict(list), set()
    for source, tree in modules.items():
        for node in tree.body:
            cls, kind = patch_of(node) or (None, None)
            home = of_class.get(cls)
            if home is None or EVENT.match(node.name): continue
            patches[home, cls].append((source, node, kind))
            if cls in CLASSES: wanted.add(home)
    found = {PACKAGE/f"{name.replace('.', '/')}.pyi": module_stub(name, modules, patches)
             for name in sorted(wanted)}
    found[PACKAGE/'_events.pyi'] = events_stub()
    found[ALL] = with_all(ALL.read_text(encoding='utf-8'), homes)
    return found


def outdated():
    "Stubs that are not what they should be."
    wanted = stubs()
    there = {path: path.read_text(encoding='utf-8') for path in (*PACKAGE.rglob('*.pyi'), ALL)}
    return sorted(path.relative_to(ROOT).as_posix() for path in {*wanted, *there}
                  if wanted.get(path) != there.get(path))


def main():
    if '--check' in sys.argv: sys.exit('\n'.join(outdated()) or 0)
    wanted = stubs()
    for path in PACKAGE.rglob('*.pyi'):
        if path not in wanted: path.unlink()
    for path, text in wanted.items(): path.write_text(text, encoding='utf-8')


if __name__ == '__main__': main()
