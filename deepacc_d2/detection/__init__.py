"""From a gray image to boxes and class probabilities, by PyTorch, ONNX Runtime or OpenVINO."""
