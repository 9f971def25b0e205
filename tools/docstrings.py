"""Write docments, the comments beside parameters, into docstrings: where `help` and `?` find them.

The source keeps each parameter's meaning once, beside the parameter. setup.py puts the modules that
go into a wheel through `with_parameters`, so an installed package shows them with `help(Learner)`;
nothing is computed on import."""
import ast
import io
import tokenize

FUNCTION = ast.FunctionDef, ast.AsyncFunctionDef


def comments_of(source):
    "Line -> comment."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip('# ').strip() for token in tokens
            if token.type == tokenize.COMMENT}


def block(title, entries):
    "A section in the style of NumPy: [(head, text)]."
    if not entries: return []
    lines = ['', title, '-'*len(title)]
    for head, text in entries: lines += [head, f'    {text}']
    return lines


def sections(function, comments):
    "The lines that say what a function's documented parameters and its result are."
    args, documented = function.args, []
    stars = {id(args.vararg): '*', id(args.kwarg): '**'}
    for arg in [*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg]:
        if arg is None or arg.end_lineno == function.lineno: continue
        kind = f' : {ast.unparse(arg.annotation)}' if arg.annotation is not None else ''
        if arg.end_lineno in comments: documented.append(
            (stars.get(id(arg), '') + arg.arg + kind, comments[arg.end_lineno]))
    if not documented: return []
    end = max(getattr(node, 'end_lineno', 0) for node in ast.walk(args))
    after = [comments[i] for i in range(end+1, function.body[0].lineno) if i in comments]
    kind = ast.unparse(function.returns) if function.returns is not None else 'result'
    return block('Parameters', documented) + block('Returns', [(kind, after[-1])] if after else [])


def documented_nodes(tree):
    "(node that has the docstring, function that has the parameters)."
    for node in tree.body:
        if isinstance(node, FUNCTION): yield node, node
        if not isinstance(node, ast.ClassDef): continue
        for part in node.body:
            if isinstance(part, FUNCTION): yield (node if part.name == '__init__' else part), part


def with_parameters(
    source:str, # Of a module
)->str:         # The same, with a block for parameters and result in the docstrings
    "Add to each docstring what the comments beside the parameters say."
    lines, comments, changes = source.split('\n'), comments_of(source), []
    for owner, function in documented_nodes(ast.parse(source)):
        text, added = ast.get_docstring(owner), sections(function, comments)
        if not text or not added: continue
        doc = owner.body[0]
        if lines[doc.lineno-1][:doc.col_offset].strip(): continue  # on the line of its `def`
        indent = ' '*doc.col_offset
        whole = [*text.split('\n'), *added, '']
        shown = '\n'.join(f'{indent}{line}' if line else '' for line in whole)
        shown = shown.replace('\\', '\\\\').replace('"""', '\\"\\"\\"')
        changes.append((doc.lineno, doc.end_lineno, f'{indent}"""{shown.lstrip()}{indent}"""'))
    for first, last, text in sorted(changes, reverse=True): lines[first-1:last] = [text]
    return '\n'.join(lines)
