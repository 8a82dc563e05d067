"""Small programs, each of which looks at something else that the interpreter does for it."""

from support.programs import arrays, ends, exceptions, library, main, stack, system, text
from support.programs.program import Program

GROUPS = (stack, exceptions, text, main, system, ends, library, arrays)
ALL = {
    name: program if isinstance(program, Program) else Program(program)
    for group in GROUPS
    for name, program in group.PROGRAMS.items()
}
