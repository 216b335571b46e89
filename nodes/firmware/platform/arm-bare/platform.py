"""PlatformIO development platform without packages: the toolchain comes from the operating system."""

from platformio.public import PlatformBase


class ArmbarePlatform(PlatformBase):
    """Nothing to download, nothing to upload to."""

    def is_embedded(self):
        """Firmware, not a host program."""
        return True
