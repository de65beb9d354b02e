"""The release and the ABI's epoch; ./dev reads this file too."""

GRADFERRY_VERSION = "0.1.0"

# In the soname and the version node. It changes when anything in the ABI breaks.
GRADFERRY_ABI_EPOCH = "0"
