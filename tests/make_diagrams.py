"""Writes the generated parts of SPEC.md: tables and diagrams taken from the code's own tables.

    python -m tests.make_diagrams          # rewrites SPEC.md between its markers

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. `test_spec` compares.
"""

import ast
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

import msgspec
from msgspec import inspect

from node.directory import ALLOWED as MAY_ASK
from node.errors import exit_code
from protocol import errors, frame, limits
from protocol.entry import ChatId, DeviceKey, EntryId
from protocol.errors import PeerError
from protocol.operation import Kind
from protocol.roster import Void
from protocol.session import ALLOWED, Greeting, PeerKind, Session, State
from protocol.topic import Topic

SPEC: Final = Path(__file__).parent.parent / "SPEC.md"
PART: Final = re.compile(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
BESIDE: Final = (
    "policy",
    "name",
    "identity",
    "invitation",
    "operation",
    "message",
    "file",
    "attachment",
    "approval",
    "run",
    "question",
    "reply",
    "topic",
    "listing",
)
LIMIT_NAME: Final = re.compile(r"[A-Z]\w*_(?:MAX|BYTES|SECONDS)(?:_BEFORE_HELLO)?|KEYFRAME_ENTRIES")


def table(heads: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


# Limits


def constants(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Name and comment of each limit that a module states itself, in its order."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    lines = source.splitlines()
    for node in ast.parse(source).body:
        target: ast.expr | None = None
        if isinstance(node, ast.Assign):
            target = node.targets[0]
        elif isinstance(node, ast.AnnAssign):
            target = node.target
        if isinstance(target, ast.Name) and LIMIT_NAME.fullmatch(target.id):
            _, _, comment = lines[node.lineno - 1].partition("  # ")
            yield target.id, comment


def limit_table() -> str:
    return table(
        ("limit", "value", "note"),
        (
            (f"`{name}`", f"{getattr(limits, name):,}", comment)
            for name, comment in constants(limits)
        ),
    )


def beside_table() -> str:
    modules = [importlib.import_module(f"protocol.{name}") for name in BESIDE]
    return table(
        ("limit", "value", "where", "note"),
        (
            (f"`{name}`", f"{getattr(module, name):,}", module.__name__, comment)
            for module in modules
            for name, comment in constants(module)
        ),
    )


# Errors


def error_table() -> str:
    known = [
        one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, PeerError)
    ]
    return table(
        ("code", "name", "means", "exit code"),
        (
            (one.code, f"`{one.__name__}`", (one.__doc__ or "").splitlines()[0], exit_code(one()))
            for one in sorted(known, key=lambda one: one.code)
        ),
    )


def void_table() -> str:
    return table(("reason", "shown as"), ((f"`{one.name}`", one.value) for one in Void))


# Frames


def frames() -> list[type[msgspec.Struct]]:
    """Every frame, by its tag."""
    found = inspect.type_info(frame.Frame)
    assert isinstance(found, inspect.UnionType)
    listed = [one for one in found.types if isinstance(one, inspect.StructType)]
    return [one.cls for one in sorted(listed, key=lambda one: int(str(one.tag)))]


def frame_name(cls: type) -> str:
    """Return the name that SPEC and error messages use."""
    return cls.__name__.upper()


def described(kind: inspect.Type) -> str:
    """Say what a field may hold."""
    match kind:
        case inspect.IntType(ge=least, le=most):
            said = f"uint {least or 0} to {most}" if most is not None else "uint"
        case inspect.BytesType(min_length=least, max_length=most) if least == most is not None:
            said = f"{least} bytes"
        case inspect.BytesType(max_length=most):
            said = "binary" if most is None else f"binary, at most {most}"
        case inspect.UnionType(types=types):
            said = " or ".join(described(one) for one in types)
        case inspect.NoneType():
            said = "nil"
        case inspect.VarTupleType(item_type=item, min_length=least, max_length=most):
            said = f"array of {least or 0} to {most} ({described(item)})"
        case inspect.TupleType(item_types=items):
            said = "[" + ", ".join(described(one) for one in items) + "]"
        case inspect.NamedTupleType(cls=cls, fields=fields):
            said = f"{cls.__name__} [" + ", ".join(one.name for one in fields) + "]"
        case inspect.StructType(cls=cls, fields=fields):
            said = f"{cls.__name__} [" + ", ".join(one.name for one in fields) + "]"
        case _:
            said = "record (6.4)"
    return said


def frame_table() -> str:
    return table(("tag", "frame", "fields, in order, after the tag"), _frame_rows())


def _frame_rows() -> Iterator[tuple[object, ...]]:
    for cls in frames():
        yield cls.__struct_config__.tag, f"`{frame_name(cls)}`", _listed(cls)
    for part in (
        frame.ChatHeads,
        frame.Head,
        frame.Holding,
        frame.Seal,
        frame.Span,
        frame.Roll,
    ):
        yield "", part.__name__, _listed(part)


def _listed(cls: type) -> str:
    return "; ".join(f"`{name}` {kind}" for name, kind in _fields(cls)) or "none"


def _fields(cls: type) -> list[tuple[str, str]]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return [(field.name, described(field.type)) for field in info.fields]


# Sessions


CHAT: Final = ChatId(bytes(32))
DEVICE: Final = DeviceKey(bytes(32))
RUN: Final = frame.Run(CHAT, DEVICE, 0, 0, None, None, (msgspec.Raw(b"\x90"),), ((0, bytes(64)),))
SAMPLES: Final[Mapping[type, frame.Frame]] = {
    type(one): one
    for one in (
        frame.Hello((1,), bytes(16), None, 0, bytes(16)),
        frame.Heads(1, 1, ()),
        frame.Want(CHAT, DEVICE, 0, bytes(8), 0, 1),
        RUN,
        frame.Absent(CHAT, DEVICE, 0, 0),
        frame.Have(()),
        frame.Forked(CHAT, b""),
        frame.WantSeals(CHAT, EntryId(bytes(32)), ()),
        frame.Seals(CHAT, EntryId(bytes(32)), ()),
        frame.Ask(1, 0, b""),
        frame.Answer(1, 0, b""),
        frame.Error(1, b""),
        frame.Bye(),
        frame.Ping(),
        frame.Pong(),
        frame.Seen(0),
        frame.WantBlob(CHAT, EntryId(bytes(32)), 0, 1),
        frame.Blob(CHAT, EntryId(bytes(32)), 0, b"", ()),
        frame.Lacking(CHAT, EntryId(bytes(32)), 0, 1),
        frame.Recon(1, (), (), (), 0),
        frame.IHave(CHAT, (frame.Head(DEVICE, 0, 0, bytes(8)),)),
        frame.Graft(CHAT, frame.Head(DEVICE, 0, 0, bytes(8))),
        frame.Prune(CHAT),
    )
}


def step(state: State, peer: PeerKind, cls: type) -> tuple[State, str]:
    """Give one frame to a session; return the state after it, and the effects by name."""
    session = Session(peer, Greeting(bytes(16), None, 0, bytes(16)), 0.0)
    session.state = state
    try:
        effects = session.receive(SAMPLES[cls], 0.0)
    except PeerError as error:
        return State.CLOSED, f"{type(error).__name__}: ERROR is sent"
    return session.state, ", ".join(type(effect).__name__ for effect in effects) or "none"


def allowed_table() -> str:
    columns = [(State.GREETING, PeerKind.NODE), (State.GREETING, PeerKind.DEVICE)]
    columns += [(State.GREETING, PeerKind.INVITATION)]
    columns += [(State.OPEN, PeerKind.NODE), (State.OPEN, PeerKind.DEVICE)]
    heads = ("frame", *(f"{state.value}, {peer.value}" for state, peer in columns), "effects")
    return table(heads, (_allowed_row(cls, columns) for cls in frames()))


def _allowed_row(cls: type, columns: list[tuple[State, PeerKind]]) -> tuple[object, ...]:
    cells = ["yes" if cls in ALLOWED[column] else "–" for column in columns]
    where = next(column for column in reversed(columns) if cls in ALLOWED[column])
    return (f"`{frame_name(cls)}`", *cells, step(*where, cls)[1])


def diagram(peer: PeerKind) -> str:
    """Draw the session with one kind of peer, from what a session does."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for state in (State.GREETING, State.OPEN):
        allowed = ALLOWED.get((state, peer), frozenset())
        for cls in frames() if allowed else ():
            after, _ = step(state, peer, cls)
            if cls in allowed:
                arrows.setdefault((state, after), []).append(frame_name(cls))
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.GREETING.value}"]
    for (before, after), names in arrows.items():
        label = ", ".join(names)
        lines.append(f"    {before.value} --> {after.value}: {label}")
    lines += [
        f"    {state.value} --> {State.CLOSED.value}: any other frame, a deadline"
        for state in (State.GREETING, State.OPEN)
        if (state, peer) in ALLOWED
    ]
    lines += [f"    {State.CLOSED.value} --> [*]", "```"]
    return "\n".join(lines)


def diagrams() -> str:
    """Draw the session with each kind of peer; kinds that are treated alike share a drawing."""
    drawn: dict[str, list[str]] = {}
    for peer in PeerKind:
        drawn.setdefault(diagram(peer), []).append(peer.value)
    return "\n\n".join(
        f"With a peer of kind {' or '.join(kinds)}:\n\n{picture}"
        for picture, kinds in drawn.items()
    )


def topic_table() -> str:
    heads = ("topic", "name", *(kind.value for kind in PeerKind))
    return table(
        heads,
        (
            (
                int(topic),
                f"`{topic.name}`",
                *("yes" if topic in MAY_ASK[kind] else "–" for kind in PeerKind),
            )
            for topic in Topic
        ),
    )


def kind_table() -> str:
    return table(("kind", "name"), ((int(kind), f"`{kind.name.lower()}`") for kind in Kind))


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "limits": limit_table,
    "beside": beside_table,
    "errors": error_table,
    "voids": void_table,
    "kinds": kind_table,
    "frames": frame_table,
    "allowed": allowed_table,
    "sessions": diagrams,
    "topics": topic_table,
}


def generated(text: str) -> str:
    """Return the text of SPEC with every generated part made anew."""

    def anew(found: re.Match[str]) -> str:
        name = found.group(1)
        return f"<!-- generated: {name} -->\n{PARTS[name]()}\n<!-- end -->"

    return PART.sub(anew, text)


def main() -> None:
    SPEC.write_text(generated(SPEC.read_text()))


if __name__ == "__main__":
    main()
