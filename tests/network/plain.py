"""Turn off what a network card would do for the kernel: DEVICE. A frame is then as on a real wire.

Otherwise frames of up to 64 KiB without a checksum would pass the switch. Run in the namespace of
the device; there is no `ethtool` everywhere.
"""

import array
import fcntl
import socket
import struct
import sys
from pathlib import Path

SIOCETHTOOL = 0x8946
OFF = {
    "checksums": 0x17,
    "scatter and gather": 0x19,
    "TCP segmentation": 0x1F,
    "segmentation": 0x24,
    "joining what was received": 0x2C,
}


def main(device: str) -> None:
    """Turn all of it off, and IPv6 with its own chatter."""
    with socket.socket() as any_socket:
        for command in OFF.values():
            value = array.array("B", struct.pack("II", command, 0))
            pointer, _ = value.buffer_info()
            request = struct.pack("16sP", device.encode(), pointer)
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)
    Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")


if __name__ == "__main__":
    main(sys.argv[1])
