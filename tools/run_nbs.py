"""Execute notebooks in place, each in a fresh kernel, so that the outputs in git are real.

    python tools/run_nbs.py [nbs/x.ipynb ...]

Leaves alone the cells that nbdev_test leaves alone: `#| eval: false`, and those whose flag is in
settings.ini's tst_flags (unless named in `--flags`), which keep the outputs they have. Finishes
with nbdev_clean, so a second run changes nothing. A notebook that fails is left as it was."""
import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.process import extract_directives
from pages import name_of, page_paths


class DirectiveClient(NotebookClient):
    "A notebook client that heeds nbdev's directives."
    skip_flags = set()

    async def async_execute_cell(self, cell, cell_index, *args, **kwargs):
        if cell.cell_type == 'code':
            directives = extract_directives(cell, remove=False)
            off = directives.get('eval:', [''])[0].lower() == 'false'
            off = off or 'nbdev_export(' in cell.source
            if off or self.skip_flags & directives.keys(): return cell
        return await super().async_execute_cell(cell, cell_index, *args, **kwargs)


SHARP = '--InlineBackend.figure_formats={"retina"}'  # two pixels for one


def run_nb(path, timeout):
    "Execute, write and clean the notebook at `path`."
    nb = nbformat.read(path, 4)
    # --log-level: silences the warning that a new ipykernel prints about its own TCP port
    DirectiveClient(nb, kernel_name='python3', timeout=timeout, record_timing=False,
                    coalesce_streams=True, extra_arguments=['--log-level=40', SHARP],
                    resources={'metadata': {'path': str(path.parent)}}).execute()
    nbformat.write(nb, path)
    nbdev_clean(str(path))


def environment(root):
    "What kernels see: our library, a fixed hash seed, one thread, no network, that it is a test."
    paths = [str(root), os.environ.get('PYTHONPATH', '')]
    # the warning ignored shows a path of this machine; `from datasets import ...` raises it
    return dict(PYTHONPATH=os.pathsep.join(filter(None, paths)), PYTHONHASHSEED='0',
                PYTHONWARNINGS='ignore:IProgress not found', HF_HUB_OFFLINE='1',
                HF_HUB_DISABLE_TELEMETRY='1', OMP_NUM_THREADS='1', IN_TEST='1')


def main():
    config = get_config()
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='*', type=Path)
    parser.add_argument('--flags', default='', help='tst_flags to run all the same')
    parser.add_argument('--timeout', type=int, default=900, help='seconds a cell may take')
    args = parser.parse_args()
    os.environ.update(environment(config.config_path))
    os.environ.pop('MPLBACKEND', None)  # 'agg' would leave the pages without their figures
    DirectiveClient.skip_flags = set(config.tst_flags.split()) - set(args.flags.split())
    failed = 0
    for path in args.files or page_paths():
        start, state = time.time(), 'ok'
        try: run_nb(path, args.timeout)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(error, file=sys.stderr)
            failed, state = failed + 1, 'FAILED, file left as it was'
        print(f'{name_of(path.resolve())}: {state}, {time.time()-start:.1f}s', flush=True)
    return 1 if failed else 0


if __name__ == '__main__': sys.exit(main())
