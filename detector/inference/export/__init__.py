"""Export of trained detectors: to ONNX, to torch.export's programs and to OpenVINO, with preprocessing inside."""
