"""Kernels written in Python expressions that become LLVM instructions.

A kernel is a function `void name(int64 *arguments)`: one signature serves a plain call and a team of threads. Values
are scalars or vectors of any length; LLVM splits a vector into the registers that the chosen processor has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

__all__ = ["F32", "I1", "I8", "I16", "I32", "I64", "Kernel", "Value", "Variable", "vector"]

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32 = ir.FloatType()


def vector(element: ir.Type, lanes: int) -> ir.VectorType:
    """Return the type of `lanes` elements."""
    return ir.VectorType(element, lanes)


class Value:
    """A value of the kernel; operators append instructions. A plain number beside it becomes a constant of its type.

    Integers are signed in comparisons and division; `>>` brings in zeros.
    """

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder = builder
        self.value = value

    @property
    def type(self) -> ir.Type:
        """The LLVM type."""
        return self.value.type

    def _operand(self, other: Value | float) -> ir.Value:
        if isinstance(other, Value):
            return other.value
        lanes = self.type.count if isinstance(self.type, ir.VectorType) else 0
        return ir.Constant(self.type, [other] * lanes if lanes else other)

    def _apply(self, instruction: str, other: Value | float) -> Value:
        return Value(self.builder, getattr(self.builder, instruction)(self.value, self._operand(other)))

    @property
    def _float(self) -> bool:
        return (self.type.element if isinstance(self.type, ir.VectorType) else self.type) == F32

    def __add__(self, other: Value | float) -> Value:
        return self._apply("fadd" if self._float else "add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._apply("fsub" if self._float else "sub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self._apply("fmul" if self._float else "mul", other)

    def __floordiv__(self, other: Value | int) -> Value:
        return self._apply("sdiv", other)

    def __mod__(self, other: Value | int) -> Value:
        return self._apply("srem", other)

    def __and__(self, other: Value | int) -> Value:
        return self._apply("and_", other)

    def __or__(self, other: Value | int) -> Value:
        return self._apply("or_", other)

    def __xor__(self, other: Value | int) -> Value:
        return self._apply("xor", other)

    def __lshift__(self, other: Value | int) -> Value:
        return self._apply("shl", other)

    def __rshift__(self, other: Value | int) -> Value:
        return self._apply("lshr", other)

    def compare(self, relation: str, other: Value | float) -> Value:
        """Return `self relation other` as one bit (per lane); with NaN every relation but != is false."""
        if self._float:
            method = self.builder.fcmp_unordered if relation == "!=" else self.builder.fcmp_ordered
        else:
            method = self.builder.icmp_signed
        return Value(self.builder, method(relation, self.value, self._operand(other)))

    def at_most(self, other: Value | int) -> Value:
        """Return the smaller one."""
        return self.compare("<", other).choose(self, other)

    def choose(self, yes: Value | float, no: Value | float) -> Value:
        """Return `yes` where this bit is set and `no` elsewhere; at least one of the two is a `Value`."""
        like = yes if isinstance(yes, Value) else no
        assert isinstance(like, Value)
        return Value(self.builder, self.builder.select(self.value, like._operand(yes), like._operand(no)))

    def splat(self, lanes: int) -> Value:
        """Return a vector that holds this scalar in every lane."""
        kind = vector(self.type, lanes)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), self.value, ir.Constant(I32, 0))
        zeros = ir.Constant(vector(I32, lanes), [0] * lanes)
        return Value(self.builder, self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros))

    def followed_by(self, other: Value) -> Value:
        """Return the lanes of this vector and then those of another one of the same type."""
        numbers = list(range(2 * self.type.count))
        mask = ir.Constant(vector(I32, len(numbers)), numbers)
        return Value(self.builder, self.builder.shuffle_vector(self.value, other.value, mask))

    def beside(self, other: Value) -> Value:
        """Return the lanes of both vectors in turns."""
        count = self.type.count
        numbers = [lane + part * count for lane in range(count) for part in (0, 1)]
        mask = ir.Constant(vector(I32, len(numbers)), numbers)
        return Value(self.builder, self.builder.shuffle_vector(self.value, other.value, mask))

    def part(self, first: int, count: int) -> Value:
        """Return `count` lanes of this vector, from the lane `first` on."""
        mask = ir.Constant(vector(I32, count), list(range(first, first + count)))
        return Value(self.builder, self.builder.shuffle_vector(self.value, ir.Constant(self.type, ir.Undefined), mask))

    def twice(self) -> Value:
        """Return the lanes of this vector, and once more."""
        return self.followed_by(self)

    def look_up(self, places: Value) -> Value:
        """Return bytes of this table, 16 and the same once more; each of the 32 places is a byte below 16."""
        return _intrinsic(self.builder, "llvm.x86.avx2.pshuf.b", self.type, [self.value, places.value], [])

    def cast(self, kind: ir.Type) -> Value:
        """Return the same bits as another type of the same size."""
        return Value(self.builder, self.builder.bitcast(self.value, kind))

    def widen(self, kind: ir.Type, *, signed: bool = True) -> Value:
        """Return the same integer in more bits."""
        return Value(self.builder, (self.builder.sext if signed else self.builder.zext)(self.value, kind))

    def narrow(self, kind: ir.Type) -> Value:
        """Return the low bits of the integer."""
        return Value(self.builder, self.builder.trunc(self.value, kind))

    def to_float(self) -> Value:
        """Return the integer as float32."""
        kind = vector(F32, self.type.count) if isinstance(self.type, ir.VectorType) else F32
        return Value(self.builder, self.builder.sitofp(self.value, kind))

    def popcount(self) -> Value:
        """Return the number of set bits (per lane)."""
        return _intrinsic(self.builder, "llvm.ctpop", self.type, [self.value], [self.type])


class Variable:
    """What changes in a loop: LLVM keeps it in a register."""

    def __init__(self, kernel: Kernel, kind: ir.Type, initial: Value | None = None) -> None:
        with kernel.builder.goto_entry_block():
            self.slot = kernel.builder.alloca(kind)
        self.kernel, self.kind = kernel, kind
        zero = ir.Constant(kind, [0] * kind.count if isinstance(kind, ir.VectorType) else 0)
        kernel.builder.store(zero if initial is None else initial.value, self.slot)

    @property
    def now(self) -> Value:
        """The present value."""
        return Value(self.kernel.builder, self.kernel.builder.load(self.slot, typ=self.kind))

    def set(self, value: Value) -> None:
        """Give it another value."""
        self.kernel.builder.store(value.value, self.slot)


class Kernel:
    """One function of a module, while it is written; `finish` ends it.

    Args:
        module: the LLVM module that takes the function.
        name: of the function.
        arguments: names of the 64-bit integers that it is given, in order; addresses are among them. Before them stands
            the number of units of work that threads have taken, 0 at first.
    """

    def __init__(self, module: ir.Module, name: str, arguments: tuple[str, ...]) -> None:
        pointer = I64.as_pointer()
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer]), name)
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self._block = function.args[0]
        self._arguments = {}
        for index, argument in enumerate(arguments, start=1):
            place = self.builder.gep(self._block, [ir.Constant(I64, index)], source_etype=I64)
            self._arguments[argument] = Value(self.builder, self.builder.load(place, typ=I64))

    def __getitem__(self, argument: str) -> Value:
        return self._arguments[argument]

    def constant(self, kind: ir.Type, value: Any) -> Value:
        """Return a constant: a number, or for a vector a list of them."""
        return Value(self.builder, ir.Constant(kind, value))

    def load(self, kind: ir.Type, address: Value) -> Value:
        """Return what stands at an address, which need not be aligned."""
        return Value(self.builder, self.builder.load(self._pointer(kind, address), align=1, typ=kind))

    def store(self, value: Value, address: Value) -> None:
        """Write to an address, which need not be aligned."""
        self.builder.store(value.value, self._pointer(value.type, address), align=1)

    def load_lanes(self, kind: ir.VectorType, address: Value, mask: Value) -> Value:
        """Return the lanes of `mask` from an address and 0 in the others, whose memory is not touched."""
        pointer, zero = self._pointer(kind, address), ir.Constant(kind, [0] * kind.count)
        arguments = [pointer, ir.Constant(I32, 1), mask.value, zero]
        return _intrinsic(self.builder, "llvm.masked.load", kind, arguments, [kind, pointer.type])

    def store_lanes(self, value: Value, address: Value, mask: Value) -> None:
        """Write the lanes of `mask` to an address; the memory of the others is not touched."""
        pointer = self._pointer(value.type, address)
        arguments = [value.value, pointer, ir.Constant(I32, 1), mask.value]
        _intrinsic(self.builder, "llvm.masked.store", ir.VoidType(), arguments, [value.type, pointer.type])

    def scratch(self, kind: ir.Type) -> Value:
        """Return the address of memory for a value of this type, each thread's own."""
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(kind)
            return Value(self.builder, self.builder.ptrtoint(slot, I64))

    def first_lanes(self, lanes: int, count: Value) -> Value:
        """Return the mask of the first `count` of `lanes` lanes."""
        numbers = self.constant(vector(I32, lanes), list(range(lanes)))
        return numbers.compare("<", count.narrow(I32).splat(lanes))

    def take(self) -> Value:
        """Return the first argument and raise it by one, as one step among all threads."""
        one = ir.Constant(I64, 1)
        return Value(self.builder, self.builder.atomic_rmw("add", self._block, one, "monotonic"))

    @contextmanager
    def loop(self, start: Value | int, stop: Value | int, step: int = 1) -> Iterator[Value]:
        """Repeat the block with an index from `start` up to, without, `stop`."""
        index = Variable(self, I64, start if isinstance(start, Value) else self.constant(I64, start))
        with self.repeat() as leave:
            leave(index.now.compare(">=", stop))
            yield index.now
            index.set(index.now + step)

    @contextmanager
    def repeat(self) -> Iterator[Any]:
        """Repeat the block until the function that it is given is called with a true bit."""
        body, after = self.builder.append_basic_block("body"), self.builder.append_basic_block("after")

        def leave(condition: Value) -> None:
            further = self.builder.append_basic_block("further")
            self.builder.cbranch(condition.value, after, further)
            self.builder.position_at_end(further)

        self.builder.branch(body)
        self.builder.position_at_end(body)
        yield leave
        self.builder.branch(body)
        self.builder.position_at_end(after)

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Run the block if the bit is set."""
        with self.builder.if_then(condition.value):
            yield

    def finish(self) -> None:
        """End the function."""
        self.builder.ret_void()

    def _pointer(self, kind: ir.Type, address: Value) -> ir.Value:
        return self.builder.inttoptr(address.value, kind.as_pointer())


def _intrinsic(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[Any], overload: list[Any]) -> Value:
    name = ".".join([name, *map(_mangled, overload)])
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        function = ir.Function(builder.module, kind, name)
    return Value(builder, builder.call(function, arguments))


def _mangled(kind: ir.Type) -> str:
    if isinstance(kind, ir.PointerType):
        return "p0"
    return f"v{kind.count}{kind.element.intrinsic_name}" if isinstance(kind, ir.VectorType) else kind.intrinsic_name
