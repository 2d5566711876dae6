"""Models for elsewhere: ONNX files, and scripts that answer in a browser."""

import os

# ONNX Runtime reports its use to its maker over the network, and keeps an identifier of the machine
# in the home folder, unless it is told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
