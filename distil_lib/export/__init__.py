"""Models for elsewhere: ONNX files, and scripts that answer in a browser."""
