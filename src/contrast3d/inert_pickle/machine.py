"""The pickle machine, interpreted: a stack and a memo that only ever hold inert values."""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Iterator

import numpy as np

from contrast3d.inert_pickle.objects import Malformed, Name, Pending, Stub, call, key_of

MOST_NESTED = 256
ROOM = 1 << 20
Persistent = Callable[[object], object]


def interpret(file, persistent: Persistent) -> object:
    """The object of the pickle at the position of `file`, which ends up behind it; Malformed where it is none.

    persistent: what an id that points out of the pickle stands for.
    """
    machine = _Machine(persistent)
    try:
        for opcode, argument, machine.position in pickletools.genops(file):
            if opcode.name not in _OPCODES:
                raise Malformed(f"the opcode {opcode.name}, which no saved array or network needs")
            _OPCODES[opcode.name](machine, argument)
        result = machine.pop()
    except (IndexError, KeyError):
        raise Malformed("an opcode that reaches for what is not there") from None
    except (ValueError, OverflowError, struct.error, EOFError) as error:
        raise Malformed(f"a pickle that breaks off ({str(error)[:120]})") from None
    check_nesting([result])
    return result


class _Machine:
    """stack: values; marks: lengths that the stack had at its marks; memo: values by number.

    position: in the pickle; copied: elements of the arguments of calls, which may be copied by them.
    """

    def __init__(self, persistent: Persistent):
        self.persistent = persistent
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.position = self.copied = 0

    def push(self, value) -> None:
        self.stack.append(value)

    def pop(self):
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def remember(self, key: int) -> None:
        value = self.memo[key] = self.stack[-1]
        if isinstance(value, Pending):
            value.keys.append(key)

    def discard(self) -> None:
        if self.marks and len(self.stack) == self.marks[-1]:
            self.marks.pop()
        else:
            self.stack.pop()

    def reduce(self, named: bool = False) -> None:
        extra = self.pop() if named else None
        args, function = self.pop(), self.pop()
        self.call(function, args, extra)

    def call(self, function, args, named=None) -> None:
        if isinstance(args, tuple):
            self.copied += sum(len(a) for a in args if isinstance(a, str | bytes | list | tuple | dict | set))
        if self.copied > 4 * self.position + ROOM:  # copies of copies: a small file that fills the memory
            raise Malformed("calls that make far more than the file holds")
        self.push(call(function, args, named))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Stub):
            target.state = state
        elif isinstance(target, Pending):
            made = self.stack[-1] = target.fill(target.value, state)
            for key in target.keys:
                if self.memo[key] is target:
                    self.memo[key] = made

    def extend(self, values: list) -> None:
        target = self.stack[-1]
        if isinstance(target, Stub):
            target.values.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise Malformed(f"values appended to {type(target).__name__}")

    def update(self, flat: list) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Stub) else target
        if not isinstance(items, dict) or len(flat) % 2:
            raise Malformed(f"items set in {type(target).__name__}")
        items.update((key_of(k), v) for k, v in zip(flat[::2], flat[1::2]))

    def add(self, values: list) -> None:
        target = self.stack[-1]
        if isinstance(target, Stub):
            target.values.extend(values)
        elif isinstance(target, set):
            target.update(key_of(v) for v in values)
        else:
            raise Malformed(f"members added to {type(target).__name__}")

    def name(self, module, name) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a name that is not text")
        self.push(Name(f"{module}.{name}"))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def instance(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.call(Name(f"{module}.{name}"), tuple(self.pop_to_mark()))

    def new_object(self) -> None:
        function, *args = self.pop_to_mark()
        self.call(function, tuple(args))

    def new_tuple(self, count: int) -> None:
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def new_dict(self) -> None:
        flat = self.pop_to_mark()
        self.push({})
        self.update(flat)


def _pushed(machine: _Machine, argument) -> None:
    machine.push(argument)


_OPCODES: dict[str, Callable] = {
    **dict.fromkeys((
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
        "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
        "BINUNICODE8", "FLOAT", "BINFLOAT"), _pushed),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, a: None),
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "EMPTY_SET": lambda m, a: m.push(set()),
    "LIST": lambda m, a: m.push(m.pop_to_mark()),
    "TUPLE": lambda m, a: m.push(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, a: m.new_tuple(1),
    "TUPLE2": lambda m, a: m.new_tuple(2),
    "TUPLE3": lambda m, a: m.new_tuple(3),
    "DICT": lambda m, a: m.new_dict(),
    "FROZENSET": lambda m, a: m.push(frozenset(key_of(v) for v in m.pop_to_mark())),
    "APPEND": lambda m, a: m.extend([m.pop()]),
    "APPENDS": lambda m, a: m.extend(m.pop_to_mark()),
    "SETITEM": lambda m, a: m.update([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, a: m.update(m.pop_to_mark()),
    "ADDITEMS": lambda m, a: m.add(m.pop_to_mark()),
    "POP": lambda m, a: m.discard(),
    "POP_MARK": lambda m, a: m.pop_to_mark(),
    "DUP": lambda m, a: m.push(m.stack[-1]),
    "MARK": lambda m, a: m.marks.append(len(m.stack)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, a: m.push(m.memo[a])),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, a: m.remember(a)),
    "MEMOIZE": lambda m, a: m.remember(len(m.memo)),
    "GLOBAL": lambda m, a: m.name(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: m.stack_global(),
    "REDUCE": lambda m, a: m.reduce(),
    "NEWOBJ": lambda m, a: m.reduce(),
    "NEWOBJ_EX": lambda m, a: m.reduce(named=True),
    "BUILD": lambda m, a: m.build(),
    "INST": lambda m, a: m.instance(a),
    "OBJ": lambda m, a: m.new_object(),
    "PERSID": lambda m, a: m.push(m.persistent(a)),
    "BINPERSID": lambda m, a: m.push(m.persistent(m.pop())),
}


def _children(value) -> Iterator:
    if isinstance(value, list | tuple):
        return iter(value)
    if isinstance(value, dict):
        return iter(value.values())
    if isinstance(value, Stub):
        return iter((value.args, value.state, value.items, value.values))
    return iter(value.ravel().tolist() if isinstance(value, np.ndarray) and value.dtype.hasobject else ())


def check_nesting(root: object, most: int = MOST_NESTED) -> None:
    """Malformed where containers lie more than `most` deep in each other: whoever walks them would recurse as deep.

    An object inside of itself counts as a leaf there.
    """
    heights: dict[int, int] = {id(root): 0}  # of what was walked, and 0 for what is being walked
    path = [[root, _children(root), 0]]
    while path:
        for child in path[-1][1]:
            if isinstance(child, Pending):
                raise Malformed("an array that is never filled")
            if id(child) in heights:
                path[-1][2] = max(path[-1][2], heights[id(child)])
            elif isinstance(child, list | tuple | dict | Stub | np.ndarray):
                heights[id(child)] = 0
                path.append([child, _children(child), 0])
                break
        else:
            value, _, height = path.pop()
            heights[id(value)] = height + 1
            if path:
                path[-1][2] = max(path[-1][2], height + 1)
            if height >= most:
                raise Malformed(f"objects nested more than {most} deep")
        if len(path) > most:
            raise Malformed(f"objects nested more than {most} deep")
