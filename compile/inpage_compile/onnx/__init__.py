"""What a .onnx file says of itself: read without the `onnx` package, which is larger than the whole compiler."""
