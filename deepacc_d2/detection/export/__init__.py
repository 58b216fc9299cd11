"""The whole detector as a file for ONNX Runtime or OpenVINO, and runners of such files."""
