"""Hands PlatformIO the SCons installed beside it."""

import sys

try:
    from SCons.Script.Main import main
except ImportError:
    sys.exit("SCons is missing from this Python environment: pip install scons==4.11.1")

main()
