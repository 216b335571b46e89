"""Extra script for the registry environments: ststm32 without a framework adds neither our warnings nor link flags."""

Import("env")  # noqa: F821

env.Append(  # noqa: F821
    CFLAGS=["-std=c11"],
    CCFLAGS=["-Os", "-ffunction-sections", "-fdata-sections", "-mfloat-abi=soft"],
    LINKFLAGS=["-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections", "-mfloat-abi=soft"],
)
