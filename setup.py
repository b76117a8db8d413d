"""Puts configs, tools and the model index into the wheel as mmparc/.mim, as OpenMMLab's wheels do.

All else is in pyproject.toml. An editable install needs no copy: mmparc.home() finds the checkout.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CARRIED = {'configs': ('.py', '.md', '.yml', '.yaml'), 'tools': ('.py', '.sh')}
OF_A_CHECKOUT = ('make_env.sh', 'try_stacks.py', 'demo.sh')  # they work on one


class BuildWithConfigs(build_py):
    def run(self) -> None:
        package = Path(self.build_lib, 'mmparc')
        if package.resolve() == ROOT.resolve() / 'mmparc':
            raise SystemExit('error: --build-lib is the checkout itself: name another folder')
        if not self.editable_mode:
            shutil.rmtree(package, ignore_errors=True)  # what an earlier build left in build/
        super().run()
        if not self.editable_mode:
            for path in carried():
                target = package / '.mim' / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)


def carried() -> list[Path]:
    found = [ROOT / 'model-index.yml']
    for folder, suffixes in CARRIED.items():
        found += [path for path in ROOT.glob(f'{folder}/**/*') if path.suffix in suffixes]
    return [path for path in found if path.name not in OF_A_CHECKOUT]


setup(cmdclass={'build_py': BuildWithConfigs})
