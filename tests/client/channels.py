"""What publishers of a channel and its readers hand each other, without nodes."""

from client import grants
from client.device import Device
from protocol.question import Forward
from tests.federation import Federation, now

LATER = 3_600_000


def deliver(parcels: list[Forward], *devices: Device) -> int:
    """Hand parcels to those of these devices that they are for; return to how many."""
    at = {device.key: device for device in devices}
    taken = 0
    for parcel in parcels:
        if parcel.device in at:
            with at[parcel.device].transaction():
                grants.take(at[parcel.device], parcel.body)
            taken += 1
    return taken


def pay(granter: Device, *readers: Device) -> int:
    """Hand over what a publisher owes."""
    with granter.transaction():
        errands = grants.due(granter, now())
        for errand in errands:
            grants.done(granter, errand)
    return deliver([errand.question for errand in errands], *readers)


def ask(reader: Device, *publishers: Device, at: int | None = None) -> int:
    with reader.transaction():
        asked = grants.asks(reader, at or now())
    return deliver(asked, *publishers)


def follow(federation: Federation, source: Device, *targets: Device) -> None:
    for target in targets:
        federation.carry(source, target)
