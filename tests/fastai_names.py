"""Events, exceptions, attributes and methods of fastai, read from its source without running it.

    python tests/fastai_names.py PATH_OF_THE_PACKAGE_fastai > tests/fastai_names.json"""
import ast
import json
import re
import sys
from pathlib import Path


def assigned(node, owner):
    "Public attributes that are assigned to what `owner` says: `self` or `self.learn`."
    return {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)
            and isinstance(inner.ctx, ast.Store) and ast.unparse(inner.value) == owner}


def members(cls):
    "Methods, class attributes, and what the methods assign to `self`."
    found = {part.name for part in cls.body if isinstance(part, ast.FunctionDef)}
    for part in cls.body:
        if isinstance(part, ast.Assign): found |= {
            name.id for target in part.targets for name in ast.walk(target)
            if isinstance(name, ast.Name)}
        if isinstance(part, ast.FunctionDef) and part.name == '__init__': found |= {
            arg.arg for arg in part.args.args[1:]}
    return found | assigned(cls, 'self')


def names(root):
    "Kind -> sorted names."
    trees = {path: ast.parse(path.read_text(encoding='utf-8')) for path in root.rglob('*.py')}
    core, learner = (trees[root/path] for path in ('callback/core.py', 'learner.py'))
    classes = {node.name: node for tree in (core, learner) for node in tree.body
               if isinstance(node, ast.ClassDef)}
    found = {name: members(classes[name]) for name in ('Learner', 'Callback', 'Recorder')}
    for tree in trees.values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or not node.args.args: continue
            cls = node.args.args[0].annotation
            if cls is None or 'patch' not in map(ast.unparse, node.decorator_list): continue
            for name in {'Learner', 'Recorder'} & {*ast.unparse(cls).split('|')}:
                found[name].add(node.name)
    for cls in classes.values(): found['Learner'] |= assigned(cls, 'self.learn')
    text = (root/'callback/core.py').read_text(encoding='utf-8')
    events = re.search(r"_events = L.split\('(.*?)'", text, re.S)[1].replace('\\', ' ').split()
    cancels = {name for name in re.findall(r"'(Cancel\w+)'", text)}
    kinds = dict(events=events, exceptions=cancels, **found)
    return {kind: sorted(name for name in some if name[0] != '_' and (
        kind == 'events' or name not in events)) for kind, some in kinds.items()}


def main(root):
    version = re.search("__version__ = ['\"](.*?)['\"]", (root/'__init__.py').read_text())[1]
    about = dict(source='https://github.com/fastai/fastai', version=version)
    print(json.dumps(about | names(root), indent=1))


if __name__ == '__main__': main(Path(sys.argv[1]))
