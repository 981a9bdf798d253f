"""Weights as arrays -> ONNX graph, float or int8."""
