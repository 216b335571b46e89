"""SCons build of a bare-metal Cortex-M program with the toolchain found on PATH."""

import os

from SCons.Script import AlwaysBuild, Builder, Default, DefaultEnvironment

env = DefaultEnvironment()
board = env.BoardConfig()

env.Replace(
    AR="arm-none-eabi-gcc-ar",
    AS="arm-none-eabi-as",
    CC="arm-none-eabi-gcc",
    CXX="arm-none-eabi-g++",
    OBJCOPY="arm-none-eabi-objcopy",
    RANLIB="arm-none-eabi-gcc-ranlib",
    SIZETOOL="arm-none-eabi-size",
    ARFLAGS=["rc"],
    SIZEPROGREGEXP=r"^(?:\.vectors|\.text|\.data)\s+(\d+).*",
    SIZEDATAREGEXP=r"^(?:\.data|\.bss|\.noinit)\s+(\d+).*",
    SIZECHECKCMD="$SIZETOOL -A -d $SOURCES",
    SIZEPRINTCMD="$SIZETOOL -B -d $SOURCES",
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
    LDSCRIPT_PATH=os.path.join("$PROJECT_DIR", board.get("build.ldscript")),
)

target = ["-mcpu=%s" % board.get("build.cpu"), "-mthumb", "-mfloat-abi=soft"]
env.Append(
    ASFLAGS=target,
    ASPPFLAGS=["-x", "assembler-with-cpp"],
    CFLAGS=["-std=c11"],
    CCFLAGS=target
    + [
        "-Os",
        "-g",
        "-ffunction-sections",
        "-fdata-sections",
        "-fno-common",
        "-fstack-usage",
        "-ffile-prefix-map=%s=." % env.subst("$PROJECT_DIR"),
        "-Wall",
        "-Wextra",
    ],
    LINKFLAGS=target
    + ["-Os", "-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections", "-Wl,-Map,$BUILD_DIR/firmware.map"],
    LIBS=["c", "gcc"],
)


# The network runs at every wake. Scheduling before registers are given out only makes its sums spill.
FAST = {"engine.c": ["-O2", "-fno-schedule-insns"]}


def strict(node_environment, node):
    """Our own sources build without a warning; Monocypher keeps its author's flags."""
    if "third_party" in node.get_path():
        return node
    flags = ["-Wconversion", "-Wshadow", "-Wvla", "-Werror", *FAST.get(os.path.basename(node.get_path()), [])]
    return node_environment.Object(node, CCFLAGS=node_environment["CCFLAGS"] + flags)


env.AddBuildMiddleware(strict, "*.c")
env.Append(
    BUILDERS={
        "ElfToBin": Builder(
            action=env.VerboseAction("$OBJCOPY -O binary $SOURCES $TARGET", "Building $TARGET"), suffix=".bin"
        )
    }
)

target_elf = env.BuildProgram()
target_bin = env.ElfToBin(os.path.join("$BUILD_DIR", "firmware"), target_elf)
env.AddPlatformTarget("upload", None, [], "Upload")
AlwaysBuild(env.Alias("nobuild", target_bin))
env.AddPlatformTarget(
    "size", target_elf, env.VerboseAction("$SIZEPRINTCMD", "Calculating size $SOURCE"), "Program Size"
)
Default([target_bin])
