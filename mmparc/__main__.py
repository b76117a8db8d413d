"""The tools from any folder, installed or not: `python -m mmparc COMMAND [ARGS...]`.

A command is a file of tools/: train, analysis/get_flops, or get_flops for short.
"""

import ast
import difflib
import runpy
import sys
from pathlib import Path

from mmparc.home import home
from mmparc.tool import one_line_errors


def main() -> None:
    try:
        tools = home() / 'tools'
    except FileNotFoundError as error:
        sys.exit(f'error: {error}')
    commands = {
        path.relative_to(tools).with_suffix('').as_posix(): path
        for path in sorted(tools.glob('**/*.py'))
    }
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        with one_line_errors():
            print_list(commands)
        return
    command = sys.argv[1]
    known = {path.stem: path for path in commands.values()} | commands
    if command not in known:
        close = difflib.get_close_matches(command, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else '`python -m mmparc` lists the commands'
        sys.exit(f"error: there is no command '{command}': {hint}")
    # As if the file had been started: argparse finds its name, spawned workers import it again.
    sys.argv = [str(known[command]), *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name='__main__')


def print_list(commands: dict[str, Path]) -> None:
    print('usage: python -m mmparc COMMAND [ARGS...]\n')
    width = max(map(len, commands))
    for command, path in commands.items():
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
        print(f'  {command:{width}}  {docstring.partition(chr(10))[0]}')


if __name__ == '__main__':
    main()
