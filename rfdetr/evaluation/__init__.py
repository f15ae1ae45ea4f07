"""Evaluation: COCO average precision and bootstrap intervals over images."""
