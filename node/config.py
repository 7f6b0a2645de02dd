"""Settings of a node: flags, then the environment, then agency.toml, then defaults.

    loaded = load_settings(folder / SETTINGS_FILE, os.environ, {"listen": "127.0.0.1:0"})
    loaded.settings.listen; explain(loaded)

Name, zone and endpoints of the agency are no settings: they stand in the signed card.
"""

import difflib
import ipaddress
import json
import re
import socket
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from node.errors import UserError
from protocol.errors import Untrusted
from protocol.name import split_endpoint

FORMAT: Final = 1
SETTINGS_FILE: Final = "agency.toml"
ENVIRONMENT_PREFIX: Final = "IVOR_"

Value = str | int | bool
Level = Literal["debug", "info", "warning", "error"]

_LISTEN: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z._-]+)):([0-9]{1,5})")
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f.:]+(?:%[0-9A-Za-z._-]+)?")
_PORT_MAX: Final = 65535
_LIKE_ENOUGH: Final = 0.75  # of a misspelt variable; a lower one would catch other programs'
_HEADING: Final = "# Settings of this node; 'ivor node config explain' lists all of them.\n"


class ConfigError(UserError):
    """A setting is unknown or not allowed; the message says where it stands and what is allowed."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings of a node. `listen`: where peers and devices connect.

    allow_local: cards may name loopback and link-local addresses, for tests on one machine.
    metrics: where Prometheus asks, host:port, or empty for nowhere.
    source: the address of this machine that dialling out begins from, or empty for any.
    connections_max: at one time. handshakes_max: of strangers who shake hands at one time; as many
    as connections_max may wait for that, for fifteen seconds.
    invitation_hours: how long an invitation is good.
    blobs: which large files of other agencies' users are kept here: all of our chats, or those that
    a device of ours demands. blobs_chat_mib, blobs_device_mib, blobs_agency_mib, blobs_mib: how
    much there may be, of one chat, by one device, by one other agency and in all; what does not fit
    is not taken.
    """

    listen: str = "0.0.0.0:7340"
    metrics: str = ""
    source: str = ""
    allow_local: bool = False
    log_level: Level = "info"
    connections_max: Annotated[int, Meta(ge=2, le=100_000)] = 4096
    handshakes_max: Annotated[int, Meta(ge=1, le=10_000)] = 64
    invitation_hours: Annotated[int, Meta(ge=1, le=24 * 90)] = 72
    blobs: Literal["all", "demand"] = "all"
    blobs_chat_mib: Annotated[int, Meta(ge=0, le=2**40)] = 64 * 1024
    blobs_device_mib: Annotated[int, Meta(ge=0, le=2**40)] = 64 * 1024
    blobs_agency_mib: Annotated[int, Meta(ge=0, le=2**40)] = 64 * 1024
    blobs_mib: Annotated[int, Meta(ge=0, le=2**40)] = 256 * 1024


class Explained(NamedTuple):
    """One setting, as shown to the operator."""

    name: str
    value: Value
    source: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for each that is not the default, where it came from."""

    settings: Settings
    sources: Mapping[str, str]


def load_settings(
    file: Path, environment: Mapping[str, str], flags: Mapping[str, Value | None]
) -> Loaded:
    """Read all sources; a later one wins: file (may be absent), environment, flags that are given.

    Raises ConfigError. Variables that begin with IVOR_ but resemble no setting are not ours.
    """
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for source, found in (
        (str(file), _from_file(file)),
        ("environment", _from_environment(environment)),
        ("flag", {name: value for name, value in flags.items() if value is not None}),
    ):
        for name, value in found.items():
            values[name] = _converted(name, value, source)
            sources[name] = source
    return Loaded(_settings(values), sources)


def explain(loaded: Loaded) -> tuple[Explained, ...]:
    """List every setting with its value and where that came from."""
    return tuple(
        Explained(name, getattr(loaded.settings, name), loaded.sources.get(name, "default"))
        for name in Settings.__struct_fields__
    )


def write_settings(values: Mapping[str, Value]) -> str:
    """Write settings as the text of a new agency.toml. Raises ConfigError as `load_settings`."""
    for name, value in values.items():
        _converted(name, value, SETTINGS_FILE)
    _settings(values)
    # A JSON string, number or boolean is the same in TOML.
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
    return "".join((_HEADING, f"format = {FORMAT}\n", *lines))


def parse_listen(text: str) -> tuple[str, int]:
    """Read HOST:PORT or [IPv6]:PORT to listen on; port 0 lets the system choose one."""
    found = _LISTEN.fullmatch(text)
    if not found or int(found[3]) > _PORT_MAX:
        raise ConfigError(
            f"cannot listen on {text!a}: write HOST:PORT or [IPv6]:PORT, such as 0.0.0.0:7340"
        )
    return found[1] or found[2], int(found[3])


def _settings(values: Mapping[str, object]) -> Settings:
    """Make settings of values that were checked one by one. Raises ConfigError."""
    settings = msgspec.convert(values, Settings)
    parse_listen(settings.listen)
    if settings.metrics:
        parse_listen(settings.metrics)
    if settings.source:
        _check_source(settings.source)
    return settings


def _check_source(text: str) -> None:
    try:
        ipaddress.ip_address(text if _ADDRESS.fullmatch(text) else "")
    except ValueError:
        raise ConfigError(
            f"cannot dial from {text!a}: write an address of this machine, such as 192.0.2.7"
        ) from None


def refuse_local(endpoints: Iterable[str]) -> None:
    """Raise Untrusted if a card's endpoint is on this machine or this wire (hostile case 60).

    Such a card would make a node dial itself or its neighbours. Skip this if `allow_local` is set.
    A host name may still lead there: the dialler asks `is_local` about the address it got.
    """
    for endpoint in endpoints:
        host, _ = split_endpoint(endpoint)
        if _names_local(host):
            raise Untrusted(
                f"a card's endpoint {endpoint} is local to a machine or a wire; "
                "only with allow_local = true (SPEC 5.2)"
            )


def is_local(address: str) -> bool:
    """Whether an IP address is loopback, link-local, unspecified or multicast."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast


def _names_local(host: str) -> bool:
    plain = host.lower().rstrip(".")
    try:
        return is_local(plain)
    except ValueError:
        pass
    try:
        # The resolver reads 127.1, 0x7f.1 and 2130706433 as addresses too.
        return is_local(socket.inet_ntoa(socket.inet_aton(plain)))
    except OSError:
        return plain == "localhost" or plain.endswith((".localhost", ".local"))


def _from_file(file: Path) -> dict[str, object]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:  # also a number too long, nesting too deep
        raise ConfigError(f"{file} is not TOML: {error}") from None
    return {name: value for name, value in found.items() if name != "format"}


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name in Settings.__struct_fields__:
            found[name] = value
        elif close := _closest(name, _LIKE_ENOUGH):
            meant = f"{ENVIRONMENT_PREFIX}{close.upper()}"
            raise ConfigError(f"environment: {variable} is no setting; is {meant} meant?")
    return found


def _converted(name: str, value: object, source: str) -> object:
    """Check one value by the type of its field; text from the environment may say a number."""
    kind = _kinds().get(name)
    if kind is None:
        close = _closest(name, 0.0)
        raise ConfigError(f"{source}: {name!a} is no setting; is {close} meant?")
    try:
        converted: object = msgspec.convert(value, kind, strict=source != "environment")
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise ConfigError(f"{source}: {name}: {error}") from None
    return converted


@cache
def _kinds() -> Mapping[str, object]:
    """Return the type of each setting."""
    return {field.name: field.type for field in msgspec.structs.fields(Settings)}


def _closest(name: str, cutoff: float) -> str | None:
    found = difflib.get_close_matches(name, Settings.__struct_fields__, n=1, cutoff=cutoff)
    return found[0] if found else None
