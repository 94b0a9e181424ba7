"""Weights on disk: published .pth files and our packed safetensors files."""
