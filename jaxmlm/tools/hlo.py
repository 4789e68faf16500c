"""What a compiled program does, read from its HLO: collectives and bytes of memory, loops counted as often as they run.

XLA's own `cost_analysis` counts the body of a loop once, and layers are a loop. Here every computation counts as often
as the loops around it turn; their number stands in their conditions. JAX has no reader of HLO, so the text is parsed;
its grammar: https://openxla.org/xla/operation_semantics. Only `jaxmlm plan` needs this file.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s4": 1, "u4": 1, "bf16": 2, "token": 0, "opaque": 0}
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "iota"}
_FREE |= {"after-all", "partition-id", "replica-id", "opt-barrier", "fusion-done", "async-done", "async-update"}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_CALLED = re.compile(r"(?:calls|to_apply|body)=%?([\w.\-]+)")


class Instruction(NamedTuple):
    """One line of HLO; `rest` is what stands after the operands."""

    name: str
    shape: str
    op: str
    operands: tuple[str, ...]
    rest: str
    root: bool
    argument: str


class Collective(NamedTuple):
    """Collectives of one place in the program: how often they run in a step, and over how many devices.

    `bytes` are those that each device sends in a step, by a ring: (n - 1) / n of what is gathered or scattered, twice
    that for an all-reduce. `hidden` is whether other work runs between their start and their end.
    """

    kind: str
    times: int
    group: int
    bytes: float
    hidden: bool


class Program(NamedTuple):
    """The computations of a compiled program by name, and the name of the one that runs."""

    computations: dict[str, list[Instruction]]
    entry: str

    def counted(self) -> dict[str, int]:
        """How often each computation runs in a step; those inside fusions are left to their fusions."""
        times: dict[str, int] = defaultdict(int)

        def visit(name: str, often: int) -> None:
            times[name] += often
            for line in self.computations.get(name, ()):
                if line.op == "while":
                    visit(_named(line.rest, "body"), often * self._turns(line))
                elif line.op == "conditional":
                    for branch in _branches(line.rest):
                        visit(branch, often)
                elif line.op in ("call", "async-start"):
                    for called in _CALLED.findall(line.rest):
                        visit(called, often)

        visit(self.entry, 1)
        return times

    def _turns(self, loop: Instruction) -> int:
        """How often a loop turns: as XLA says, or the number that its condition compares with; 1 if unknown."""
        told = re.search(r'known_trip_count"?:\{"n":"?(\d+)', loop.rest)
        if told:
            return int(told[1])
        condition = self.computations.get(_named(loop.rest, "condition"), [])
        limits = [line.argument for line in condition if line.op == "constant" and re.match(r"[su]\d+\[\]", line.shape)]
        return int(limits[0]) if len(limits) == 1 else 1

    def collectives(self) -> list[Collective]:
        """Every collective of the program."""
        return [
            one
            for name, often in self.counted().items()
            for line in self.computations.get(name, ())
            for one in self._collectives_of(line, often)
        ]

    def _collectives_of(self, line: Instruction, often: int) -> Iterator[Collective]:
        if line.op.removesuffix("-start") in KINDS:
            yield self._collective(line, line.op.removesuffix("-start"), often, line.op.endswith("-start"))
        if line.op != "fusion":
            return
        called = _CALLED.findall(line.rest)[0]
        inside = self.computations.get(called, [])
        found = [one for one in inside if one.op.removesuffix("-start") in KINDS]
        # TPUs cut a collective into a start, steps fused with other work, and an end: it counts at its start.
        marks = "".join(one.rest for one in inside if one.op == "custom-call")
        goes_on = "AsyncCollectiveDone" in marks or "async_collective_fusion" in called
        if found and not goes_on:
            scatters = "reduce-scatter" in called or "all-reduce-scatter" in called
            for one in found:
                kind = "reduce-scatter" if scatters else one.op.removesuffix("-start")
                yield self._collective(one, kind, often, "AsyncCollectiveStart" in marks)

    def _collective(self, line: Instruction, kind: str, often: int, hidden: bool) -> Collective:
        size = size_of(line.shape)
        if line.op.endswith("-start") and line.op != "all-reduce-start":  # its shape has the operands too
            arrays = [_bytes(*array) for array in _ARRAY.findall(line.shape)]
            size = max(arrays)
        group = group_of(line.rest)
        if line.op == "reduce-scatter":  # its shape is what is left
            size *= group
        share = {"all-reduce": 2.0, "collective-permute": group / max(group - 1, 1)}.get(kind, 1.0)
        return Collective(kind, often, group, share * size * (group - 1) / max(group, 1) * often, hidden)

    def moved(self) -> int:
        """Bytes that a step reads from and writes to the memory of a device (what stays on the chip is left out)."""
        total = 0
        for name, often in self.counted().items():
            lines = self.computations.get(name, [])
            shapes = {line.name: line.shape for line in lines}
            total += often * sum(self._moved_by(line, shapes) for line in lines)
        return total

    def _moved_by(self, line: Instruction, shapes: dict[str, str]) -> int:
        op = line.op
        if op in _FREE or op.endswith("-done"):
            return 0
        # A kernel that reads an array in several places has it as an operand several times.
        names = dict.fromkeys(line.operands) if op == "custom-call" else line.operands
        operands = [_far(shapes.get(name, "")) for name in names]
        if op.endswith("-start"):  # (destination, source, ...)
            arrays = [match[0] for match in _ARRAY.finditer(line.shape)]
            return sum(operands) + (_far(arrays[0]) if arrays else 0)
        if op in ("dynamic-slice", "gather", "slice"):
            return 2 * _far(line.shape)
        if op == "dynamic-update-slice":
            return 2 * operands[1]
        if op != "fusion":
            return _far(line.shape) + sum(operands)
        inside = self._inside(line)
        read = [min(self._needed(inside, _parameter(inside, i)), far) for i, far in enumerate(operands)]
        return sum(read) + _written(inside, _far(line.shape))

    def _inside(self, fusion: Instruction) -> list[Instruction]:
        return self.computations.get(_CALLED.findall(fusion.rest)[0], [])

    def _needed(self, inside: list[Instruction], value: Instruction) -> int:
        """Bytes of a value that a fusion uses: where it takes slices only, the slices, also in fusions within it."""
        whole = size_of(value.shape)
        part = 0
        for line in inside:
            for place, name in enumerate(line.operands):
                if name == value.name:
                    part += self._used(inside, line, place, whole)
        return min(part, whole)

    def _used(self, inside: list[Instruction], line: Instruction, place: int, whole: int) -> int:
        """Bytes that one line of a fusion uses of an operand."""
        within = self._inside(line) if line.op == "fusion" else []
        if line.op in ("bitcast", "copy") or (within and all(x.op in ("parameter", "bitcast", "copy") for x in within)):
            return whole if line.root else self._needed(inside, line)  # the same value, laid out otherwise
        if within:
            return self._needed(within, _parameter(within, place))
        if line.op == "dynamic-slice" and place == 0:
            return size_of(line.shape)
        return 0 if line.op == "dynamic-update-slice" and place == 0 else whole  # what is not written over stays


def read(text: str) -> Program:
    """Parse the text of a compiled program (`compiled.as_text()`)."""
    computations: dict[str, list[Instruction]] = {}
    entry = ""
    lines = None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            lines = None
        elif lines is not None and " = " in line:
            lines.append(_instruction(line))
    return Program(computations, entry)


def size_of(shape: str) -> int:
    """Bytes of a shape, or of all arrays of a tuple.

    >>> size_of("(f32[2,3]{1,0}, bf16[4]{0:T(256)S(1)})")
    32
    """
    return sum(_bytes(*array) for array in _ARRAY.findall(shape))


def group_of(rest: str) -> int:
    """Over how many devices a collective goes, by its replica groups (of a permutation: 2).

    >>> group_of("replica_groups={{0,1,2,3},{4,5,6,7}}, x"), group_of("replica_groups=[2,8]<=[16], x")
    (4, 8)
    >>> group_of("replica_groups=mesh['a'=2,'b'=4] {'b'}, x")
    4
    >>> group_of("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, dimensions={1}")
    4
    """
    if "source_target_pairs" in rest:
        return 2
    if mesh := re.search(r"replica_groups=(?:\w+)?mesh\[([^\]]*)\](?:, device_ids=\([^{]*\))? ?\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", mesh[2]))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", rest):
        return int(iota[2])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
    return len(listed[1].split(",")) if listed else 1


def _instruction(line: str) -> Instruction:
    left, _, right = line.strip().partition(" = ")
    root = left.startswith("ROOT ")
    name = left.removeprefix("ROOT ").lstrip("%")
    end = _closing(right, 0) + 1 if right.startswith("(") else right.index(" ")
    shape = right[:end]
    right = right[end:].lstrip()
    op, _, _ = right.partition("(")
    end = _closing(right, len(op))
    inner = right[len(op) + 1 : end]
    rest = right[end + 1 :]
    return Instruction(name, shape, op, tuple(re.findall(r"%([\w.\-]+)", inner)), rest, root, inner)


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return len(text)


def _bytes(dtype: str, sizes: str, layout: str = "") -> int:
    bits = re.search(r"\d+", dtype)  # as in f32
    if dtype in _BYTES:
        width = _BYTES[dtype]
    else:
        width = (int(bits[0]) + 7) // 8 if bits else 0
    return width * math.prod(int(size) for size in filter(None, sizes.split(",")))


def _far(shape: str) -> int:
    """Bytes of those arrays of a shape that lie in the memory of the device: not in that of the chip itself, S(1)."""
    return sum(_bytes(*array) for array in _ARRAY.findall(shape) if "S(" not in array[2])


def _named(rest: str, what: str) -> str:
    return re.search(rf"{what}=%?([\w.\-]+)", rest)[1]  # type: ignore[index]


def _branches(rest: str) -> list[str]:
    if listed := re.search(r"branch_computations=\{([^}]*)\}", rest):
        return [name.strip().lstrip("%") for name in listed[1].split(",")]
    return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", rest)


def _parameter(inside: list[Instruction], number: int) -> Instruction:
    return next(line for line in inside if line.op == "parameter" and line.argument == str(number))


def _through_bitcasts(inside: list[Instruction], name: str) -> str:
    """The name under which a value first appeared."""
    by_name = {line.name: line for line in inside}
    while name in by_name and by_name[name].op == "bitcast":
        name = by_name[name].operands[0]
    return name


def _written(inside: list[Instruction], whole: int) -> int:
    """Bytes that a fusion writes: of a result that is an array with a slice replaced, the slice."""
    by_name = {line.name: line for line in inside}
    root = next((line for line in inside if line.root), None)
    if root is None:
        return whole
    results = root.operands if root.op == "tuple" else (root.name,)
    saved = 0
    for name in results:
        made = by_name.get(_through_bitcasts(inside, name))
        if made is not None and made.op == "dynamic-update-slice" and _far(made.shape):
            update = by_name.get(made.operands[1])
            saved += size_of(made.shape) - (size_of(update.shape) if update else 0)
    return max(whole - saved, 0)
