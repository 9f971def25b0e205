"""Packaging for an nbdev project: every value comes from settings.ini, so edit that file."""
import runpy
import shlex
from configparser import ConfigParser
from pathlib import Path

import setuptools
from setuptools.command.build_py import build_py

here = Path(__file__).resolve().parent
docstrings = runpy.run_path(str(here/'tools/docstrings.py'))


class BuildWithDocs(build_py):
    "Copies the modules; the comments beside parameters go into their docstrings, too."
    def build_module(self, module, module_file, package):
        copied = super().build_module(module, module_file, package)
        source = Path(module_file).read_text(encoding='utf-8')
        if not self.editable_mode: Path(copied[0]).write_text(
            docstrings['with_parameters'](source), encoding='utf-8')
        return copied


parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']

wanted = '''lib_name lib_path version description keywords author author_email min_python license
            status audience language git_url'''
missing = [key for key in wanted.split() if not cfg.get(key)]
if missing: raise SystemExit(f"settings.ini lacks: {', '.join(missing)}")

spdx = {'apache2': 'Apache-2.0', 'mit': 'MIT', 'bsd3': 'BSD-3-Clause'}
stages = ['Pre-Planning', 'Planning', 'Pre-Alpha', 'Alpha', 'Beta', 'Production/Stable', 'Mature',
          'Inactive']
minor = int(cfg['min_python'].split('.')[1])


def requirements(key):
    "The requirements under `key`: separated by spaces, so none may contain one."
    return shlex.split(cfg.get(key, ''))


extras = {name: requirements(f'{name}_requirements') for name in requirements('extras')}
everything = sorted({package for packages in extras.values() for package in packages})
apart = ('timm', 'jpeg', 'peft', 'graphs', 'webdataset', 'torchdata', 'torchmetrics',
         'schedulefree', 'dev', 'docs', 'browser')
extras |= {name: requirements(f'{name}_requirements') for name in apart}
extras |= {'all': everything, 'dev': extras['dev'] + everything}

setuptools.setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    keywords=cfg['keywords'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    license=spdx.get(cfg['license'], cfg['license']),
    url=cfg['git_url'],
    project_urls={'Documentation': cfg.get('doc_host', '') + cfg.get('doc_baseurl', '')},
    classifiers=[
        f"Development Status :: {cfg['status']} - {stages[int(cfg['status'])]}",
        f"Intended Audience :: {cfg['audience'].title()}",
        f"Natural Language :: {cfg['language'].title()}",
        *(f'Programming Language :: Python :: 3.{i}' for i in range(minor, 14))],
    packages=setuptools.find_packages(include=[cfg['lib_path'], cfg['lib_path'] + '.*']),
    package_data={'': ['*.pyi'],
                  cfg['lib_path']: ['py.typed', 'data/*.parquet', 'data/README.md']},
    cmdclass={'build_py': BuildWithDocs},
    include_package_data=False,
    python_requires=f">={cfg['min_python']}",
    install_requires=requirements('requirements'),
    extras_require=extras,
    entry_points={
        'console_scripts': cfg.get('console_scripts', '').split(),
        'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]},
    long_description=(here/'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    zip_safe=False)
